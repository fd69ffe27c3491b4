"""Tokenizers made on the spot, of the classes that published pipelines load: one token a character or byte."""

from __future__ import annotations

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTokenizer,
    GemmaTokenizer,
    LlamaTokenizer,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    T5Tokenizer,
    Wav2Vec2CTCTokenizer,
)

TURNS_OF_PARTS = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n"
    "{% for part in turn.content %}{% if part.type == 'image' %}[IMG]{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endfor %}"
)
CHARACTERS = (*string.ascii_lowercase, *string.ascii_uppercase, *string.digits, *string.punctuation)
TURNS = (
    "{% for turn in messages %}<|im_start|>{{ turn.role }}\n{{ turn.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def gemma() -> Any:
    """Bytes and characters; ▁ stands for a space."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *CHARACTERS]
    return GemmaTokenizer(vocab=_numbered(tokens), merges=[])


def t5(longest: int = 512) -> Any:
    """Characters; ▁ stands for a space."""
    tokens = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((token, -2.0) for token in ("▁", *CHARACTERS))]
    return T5Tokenizer(vocab=tokens, extra_ids=0, model_max_length=longest)


def clip() -> Any:
    """Bytes, in the middle of a word and at its end; 77 tokens at most."""
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab=_numbered(tokens), merges=[], model_max_length=77)


def qwen() -> Any:
    """Bytes, and turns of a conversation."""
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return Qwen2Tokenizer(vocab=_numbered(tokens), merges=[], model_max_length=4096, chat_template=TURNS)


def qwen_vl() -> Any:
    """The same, in a processor that takes pictures and clips too."""
    return Qwen2VLProcessor(Qwen2VLImageProcessor(), qwen(), Qwen2VLVideoProcessor(), chat_template=TURNS)


def phi() -> Any:
    """Bytes and characters, and turns as Phi 3 marks them; ▁ stands for a space."""
    special = ["<unk>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>", "<|diffusion|>"]
    tokens = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *CHARACTERS]
    return LlamaTokenizer(vocab=_numbered(tokens), merges=[], additional_special_tokens=special[3:])


def pixtral() -> Any:
    """Bytes, and a processor whose turns have parts."""
    special = ["<unk>", "<pad>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    tokens = [*sorted(ByteLevel.alphabet()), "<|endoftext|>", "<|im_start|>", "<|im_end|>", *special]
    tokenizer = Qwen2Tokenizer(
        vocab=_numbered(tokens), merges=[], model_max_length=4096, pad_token="<pad>", additional_special_tokens=special
    )
    return PixtralProcessor(PixtralImageProcessor(), tokenizer, chat_template=TURNS_OF_PARTS)


def wav2vec() -> Any:
    """A token a letter."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.json"
        path.write_text(json.dumps(_numbered(["<pad>", "<s>", "</s>", "<unk>", "|", *string.ascii_uppercase])))
        return Wav2Vec2CTCTokenizer(str(path))


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}
