"""Tokenizers made on the spot, of the classes that published pipelines load: one token a character or byte."""

from __future__ import annotations

import string
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, GemmaTokenizer, Qwen2Tokenizer, T5Tokenizer

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


def _numbered(tokens: list[str]) -> dict[str, int]:
    return {token: index for index, token in enumerate(tokens)}
