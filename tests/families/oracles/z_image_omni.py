"""Z-Image Omni, one row per token; the reference's parts at time 1, text and padding at the mean."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.rows import packed
from tests.families.oracles.z_image import finished, modulated, whole


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    batch, targets = time.shape
    height, width = latents.shape[2] // 2, latents.shape[3] // 2
    text, reference = conditions["text"], conditions["reference"]
    rows = model.t_embedder(time.flatten() * model.t_scale).view(batch, targets, -1)
    mean = rows.mean(1, keepdim=True)
    clean = model.t_embedder(torch.ones(batch) * model.t_scale)[:, None]
    features = packed(reference).view(batch, height, width, -1)
    parts = model.patchify_and_embed_omni(
        [[a[:, None], b[:, None]] for a, b in zip(reference, latents, strict=True)],
        [[caption[:1], caption[1:]] for caption in text],
        [[feature, None] for feature in features],
        2,
        1,
        [[0, 1]] * batch,
    )
    pictures, captions, signs, _, *ids_and_pads = parts
    places, words, sign_places, picture_pad, caption_pad, sign_pad = (torch.stack(part) for part in ids_and_pads[:6])

    def embedded(embedder, values: list[Tensor], pad: Tensor, token: Tensor) -> Tensor:
        return torch.where(pad[..., None], token, embedder(torch.stack(values)))

    def rotary(ids: Tensor, length: int) -> Tensor:
        # The class makes positions for the padding of captions twice and drops the surplus.
        return torch.stack([model.rope_embedder(one) for one in ids])[:, :length]

    image = embedded(model.all_x_embedder["2-1"], pictures, picture_pad, model.x_pad_token)
    caption = embedded(model.cap_embedder, captions, caption_pad, model.cap_pad_token)
    sign = embedded(model.siglip_embedder, signs, sign_pad, model.siglip_pad_token)
    room = whole(targets)
    image_rows = torch.cat([clean.expand(-1, room, -1), rows, mean.expand(-1, room - targets, -1)], 1)
    for block in model.noise_refiner:
        image = modulated(block, image, image_rows, rotary(places, image.shape[1]))
    for block in model.context_refiner:
        caption = block(caption, None, rotary(words, caption.shape[1]))
    for block in model.siglip_refiner:
        sign = block(sign, None, rotary(sign_places, sign.shape[1]))
    joint = torch.cat([caption, image, sign], 1)
    every = torch.cat(
        [
            clean.expand(-1, 32, -1),
            mean.expand(-1, caption.shape[1] - 32, -1),
            image_rows,
            clean.expand(-1, room, -1),
            mean.expand(-1, 32, -1),
        ],
        1,
    )
    ids = ((words, caption), (places, image), (sign_places, sign))
    turn = torch.cat([rotary(one, part.shape[1]) for one, part in ids], 1)
    for block in model.layers:
        joint = modulated(block, joint, every, turn)
    start = caption.shape[1] + room
    return finished(model, joint[:, start : start + targets], rows, latents)


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: 1 - sigma,
    raw=lambda x0, noise: list((x0 - noise)[:, :, None]),
    first_input=lambda args, kwargs: args[0],
    target=lambda tokens, count: tokens[:, whole(count) : whole(count) + count],
    time_argument="t",
)
