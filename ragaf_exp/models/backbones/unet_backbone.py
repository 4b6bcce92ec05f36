"""Base class of backbones that wrap diffusers' UNet2DConditionModel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ragaf_exp.models.backbones import taps
from ragaf_exp.models.backbones.attention import BiasedAttention, WordBias
from ragaf_exp.models.backbones.base import NO_MODULATIONS, Backbone
from ragaf_exp.models.backbones.blocks import COMPILED
from ragaf_exp.models.backbones.controlnets.unet import UNetControl
from ragaf_exp.models.backbones.points import Injected, Modulation, Shape
from ragaf_exp.models.conditioning import Text


class UNetBackbone(Backbone):
    """A denoiser that wraps diffusers' UNet, for latents of any size. Subclasses build it as `unet`."""

    unet: UNet2DConditionModel
    control = UNetControl
    attention_layers = {"all": (".attn1.", ".attn2."), "self": (".attn1.",), "cross": (".attn2.",)}
    projections = ("to_q", "to_k", "to_v", "to_out.0")

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at every injection point, for latents of height x width."""
        return taps.trace(self.unet, height, width)

    def skip_shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at the points where a ControlNet's residuals are added."""
        return taps.trace_skips(self.unet, height, width)

    def intra_shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at the points where a T2I-Adapter's features are added."""
        return taps.trace_intra(self.unet, height, width)

    @property
    def level_widths(self) -> list[int]:
        """Channels of the UNet's levels, from fine to coarse."""
        return list(self.unet.config.block_out_channels)

    def blocks(self) -> list[nn.Module]:
        return [module for module in self.unet.modules() if isinstance(module, COMPILED)]

    def recomputed_blocks(self) -> list[nn.Module]:
        """Return no blocks: diffusers checkpoints those of its UNet."""
        return []

    def add_lora(self, rank: int, kind: str) -> None:
        from peft import LoraConfig  # takes seconds to import, and few runs need it

        targets = self.lora_targets(self.unet, kind)
        self.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))
        self.unet.requires_grad_(True)  # peft freezes all other weights, but `set_trainable` selects what is trained

    def lora_layers(self) -> dict[str, Tensor]:
        if not getattr(self.unet, "peft_config", None):
            return {}
        from diffusers.utils import convert_state_dict_to_diffusers
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(self.unet)
        return convert_state_dict_to_diffusers({name: x.detach().cpu().contiguous() for name, x in state.items()})

    def write_lora(self, folder: Path, layers: dict[str, Tensor]) -> None:
        from diffusers import StableDiffusionPipeline

        StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)

    @contextmanager
    def watch_attention(self, watch: Callable[[Tensor], object]) -> Iterator[None]:
        processors = [p for p in self.unet.attn_processors.values() if isinstance(p, BiasedAttention)]
        for processor in processors:
            processor.watch = watch
        try:
            yield
        finally:
            for processor in processors:
                processor.watch = None

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        """Predict the diffusion target.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), added to the features there. Those at `skip.i` and `skip.mid`
                are passed to diffusers as the residuals of a ControlNet.
            words: Bias of image-to-text attention.
            modulations: Injection point -> modulation of the features there, applied after the residual.

        Returns:
            The prediction, (B,C,h,w).
        """
        change = Injected(residuals, modulations).on_map
        skips = [residuals[f"{taps.SKIP}{i}"] for i in range(sum(p.startswith(taps.SKIP) for p in residuals) - 1)]
        with taps.adapted(self.unet, change), taps.tapped(self.unet, change):
            return self.unet(
                self.inputs(x_t), t, text.tokens,
                encoder_attention_mask=text.mask if text.attended is None else text.attended,
                cross_attention_kwargs={"word_bias": words, "appended": text.appended},
                down_block_additional_residuals=skips or None, mid_block_additional_residual=residuals.get(taps.SKIP_MID),
            ).sample  # fmt: skip
