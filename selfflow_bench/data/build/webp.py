"""Encodes RGB pictures as lossless WebP, the picture format of the embedded sets."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """Lossless WebP bytes of `pixels` [H, W, 3]."""
    buffer = io.BytesIO()
    # Method 6 would save two per cent more and take twenty times as long.
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=100, method=4)
    return buffer.getvalue()


def on_white(picture: Image.Image) -> Image.Image:
    """The picture composited on a white ground, as RGB."""
    rgba = picture.convert("RGBA")
    ground = Image.new("RGBA", rgba.size, "white")
    ground.alpha_composite(rgba)
    return ground.convert("RGB")
