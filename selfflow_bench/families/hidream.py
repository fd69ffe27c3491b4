"""HiDream-I1 (arXiv 2505.22705): two-stream and one-stream blocks whose feed-forwards are mixtures of experts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import HiDreamImageTransformer2DModel, UniPCMultistepScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import LAYERS, Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean
from selfflow_bench.families.parts.packing import grid_positions, pack, unpack
from selfflow_bench.families.parts.pooled_text import pooled_text


class HiDream(Family):
    """Images. Output: data - noise. Time: 1000 sigma.

    Every block sees text three times: the T5 states, the last of the language model's, and one of its layers' own; all
    are fed the same states where there are no ``text_layers``. In train() mode the experts choose their tokens by
    index, which waits for the device; in eval() mode the class gives them no gradient.
    """

    modality = "image"
    modulates_context = True
    transformer_class = HiDreamImageTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text is modulated by the blocks' own rows, where it takes its level."""
        fill_context_mean(transformer.get_submodule("t_embedder"))

    def countable(self, transformer: nn.Module) -> nn.Module:
        """Each token's routed work done by the first experts: as much, whichever the gate would choose."""
        for block in self.blocks(transformer):
            inner = block.get_submodule("block")
            if hasattr(inner.ff_i, "gate"):
                inner.ff_i = _FirstExperts(inner.ff_i)
        return transformer

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the published models."""
        size = int(self.config["patch_size"])
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Two-stream blocks, then one-stream ones."""
        return [
            *transformer.get_submodule("double_stream_blocks").children(),
            *transformer.get_submodule("single_stream_blocks").children(),
        ]

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Packed by the caller, with a mask that hides nothing.

        Left to itself the class fills oblong pictures up to its largest resolution with tokens that are attended.
        """
        grid, cells = self.token_grid(latents.shape[1:]), self.patch()[0] ** 2
        packed = torch.unflatten(pack(latents, self.patch()), -1, (-1, cells)).transpose(-1, -2).flatten(2)
        places = grid_positions(grid, latents.device)
        ids = torch.cat([torch.zeros_like(places[:, :1]), places], 1)
        text = conditions["text"]
        layers = [text] * (max(self.config["llama_layers"]) + 1)
        if LAYERS in conditions:
            layers = list(conditions[LAYERS].unbind(1))
        return {
            "hidden_states": packed,
            "timesteps": time,
            "encoder_hidden_states_t5": text,
            "encoder_hidden_states_llama3": layers,
            "pooled_embeds": pooled_text(conditions),
            "img_ids": ids.expand(len(latents), -1, -1),
            "img_sizes": [grid] * len(latents),
            "hidden_states_masks": torch.ones(packed.shape[:2], dtype=latents.dtype, device=latents.device),
        }

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Turned round; in train() mode the class leaves its tokens as ``[B, C, N, cells of a patch]``."""
        if output.shape != latents.shape:
            tokens = output.transpose(1, 2).flatten(2)
            output = unpack(tokens, self.token_grid(latents.shape[1:]), self.patch())
        return -output

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The image and the three texts, apart in two-stream blocks and together in one-stream ones."""
        batch, length = conditions["text"].shape[:2]
        text = target.new_full((batch, 3 * length), context)
        return [target, text, torch.cat([target, text], 1)]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Two-stream blocks return (image, text), one-stream blocks [image, text]; the image comes first."""
        image = output[0] if isinstance(output, tuple) else output
        rows, columns = self.token_grid(latents.shape[1:])
        tokens: Tensor = image[:, : rows * columns]
        return tokens

    def scheduler(self, shift: float) -> UniPCMultistepScheduler:
        """As in the published pipeline: UniPC on flow sigmas."""
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


class _FirstExperts(nn.Module):
    """A mixture of experts with a fixed choice."""

    def __init__(self, mixture: Any) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, tokens: Tensor) -> Tensor:
        scores = nn.functional.linear(tokens, self.mixture.gate.weight).softmax(-1)
        made: Tensor = self.mixture.shared_experts(tokens)
        for index in range(self.mixture.num_activated_experts):
            made = made + scores[..., index : index + 1] * self.mixture.experts[index](tokens)
        return made
