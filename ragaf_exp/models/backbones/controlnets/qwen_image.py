"""The ControlNet of Qwen-Image, by diffusers' QwenImageControlNetModel."""

from __future__ import annotations

from typing import Any

from diffusers import QwenImageControlNetModel
from torch import Tensor

from ragaf_exp.models.backbones.controlnets.transformer import POINT, TransformerControl, as_maps
from ragaf_exp.models.backbones.pretrained_transformer import TIMESTEPS, pack
from ragaf_exp.models.conditioning import Text


class QwenImageControl(TransformerControl):
    """Copies of Qwen-Image's blocks. It is called as QwenImageControlNetPipeline calls it."""

    kind = QwenImageControlNetModel

    def needs(self, net: Any) -> dict[str, Any]:
        """Return the settings that a ControlNet must have."""
        c = self.backbone.net.config
        same = ("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim")
        return {key: c[key] for key in same} | {"extra_condition_channels": 0}

    def residuals(self, net: Any, encoded: Tensor, x: Tensor, t: Tensor, text: Text) -> dict[str, Tensor]:
        """Call the network as the pipeline does.

        Args:
            net: The network.
            encoded: The sketch's latents, (B,C,h,w).
            x: Input of the transformer, which starts with x_t, (B,C',h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.

        Returns:
            Injection point -> residual (B,width,h',w').
        """
        size, stride = self.grid(x), self.backbone.stride
        words, mask = text.trimmed().after_image()
        samples = net(
            pack(self.x_t(x), stride), pack(encoded, stride), encoder_hidden_states=words,
            encoder_hidden_states_mask=mask, timestep=t / TIMESTEPS, img_shapes=[[(1, *size)]] * len(x), return_dict=False,
        )  # fmt: skip
        return as_maps(POINT, samples, size)
