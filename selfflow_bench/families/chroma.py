"""Chroma1 (lodestones): FLUX's blocks, whose modulations all come from one small network of the time."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from diffusers import ChromaTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import ATTENDED, Conditions
from selfflow_bench.families.parts.masked_keys import mask_keys
from selfflow_bench.families.parts.two_streams import TwoStreams


class Chroma(TwoStreams):
    """Images. Output: noise - data. Time: sigma itself. Text gets the mean of the modulations themselves."""

    transformer_class = ChromaTransformer2DModel
    time_embedding = "distilled_guidance_layer"

    def make(self) -> nn.Module:
        """Without the class's warning that it makes a part by a name that diffusers is giving up."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*FluxPosEmbed", category=FutureWarning)
            return super().make()

    def attach(self, transformer: nn.Module) -> None:
        """A mask reaches all blocks."""
        super().attach(transformer)
        attentions = [block.get_submodule("attn") for block in self.blocks(transformer)]
        mask_keys(transformer, transformer.get_submodule("pos_embed"), attentions)

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended to their full padded length, unless the conditions say what is attended."""
        arguments = self.image_arguments(latents, time, conditions)
        if ATTENDED in conditions:
            attended, tokens = conditions[ATTENDED], arguments["hidden_states"].shape[1]
            arguments["attention_mask"] = torch.cat([attended, attended.new_ones(len(attended), tokens)], 1)
        return arguments

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Two-stream blocks return (text, image), one-stream blocks [text, image] as one."""
        if not isinstance(output, tuple):
            output = (None, output[:, conditions["text"].shape[1] :])
        return super().hidden_tokens(output, latents, conditions)

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
