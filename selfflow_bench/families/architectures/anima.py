"""Anima: diffusers' Cosmos transformer behind diffusers' own text conditioner, as one trainable model.

The published pipeline runs the conditioner before its denoising loop; training runs both, so that both learn.
"""

from __future__ import annotations

from typing import Any

from diffusers import AnimaTextConditioner, CosmosTransformer3DModel
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class AnimaModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """``transformer`` and ``text_conditioner`` are the two components of the published checkpoint, unmodified."""

    _supports_gradient_checkpointing = True

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, transformer_config: dict[str, Any], text_conditioner_config: dict[str, Any]) -> None:
        super().__init__()
        self.transformer: nn.Module = CosmosTransformer3DModel(**transformer_config)
        self.text_conditioner: nn.Module = AnimaTextConditioner(**text_conditioner_config)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Any,
        text: Tensor,
        text_mask: Tensor,
        text_ids: Tensor,
        padding_mask: Tensor,
        text_ids_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> Any:
        """``hidden_states`` ``[B, C, 1, H, W]``; ``text`` is the conditioner's source, ``text_ids`` its target.

        One mask is both's, unless the target has its own.
        """
        target_mask = text_mask if text_ids_mask is None else text_ids_mask
        conditioned = self.text_conditioner(
            text, text_ids, target_attention_mask=target_mask, source_attention_mask=text_mask
        )
        return self.transformer(
            hidden_states, timestep, conditioned, padding_mask=padding_mask, return_dict=return_dict
        )
