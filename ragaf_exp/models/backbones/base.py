"""What every denoiser backbone provides, whatever network it is built on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

from torch import Tensor, nn

from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.points import Modulation, Shape
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule

NO_MODULATIONS: Mapping[str, Modulation] = {}


class Backbone(PretrainedModule, ABC):
    """A denoising network that attends to text and takes changes of its features at injection points.

    pretrained: it has seen images before, so memory.tune decides in stage 1 too what of it is trained. stride: the
    sides of its latents must be multiples of it. schedule: the diffusion that it was trained with, where it was.
    cross_layers: how many of its layers attend from the image to the text. extra_channels: channels next to x_t that its
    first layer takes, where a task gives as many.
    attention_layers: kind of attention (all, self, cross) -> what the names of such layers' parameters contain.
    projections: how the names of the linear layers end that LoRA adds to, within attention layers.
    """

    pretrained: ClassVar[bool] = False
    stride: int = 1
    extra_channels: int = 0
    schedule: dict[str, Any] | None = None
    cross_layers: int
    attention_layers: ClassVar[Mapping[str, tuple[str, ...]]]
    projections: ClassVar[tuple[str, ...]]

    @abstractmethod
    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Channels and resolution at every injection point, for latents of height x width."""

    @abstractmethod
    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        """The denoiser's prediction (B,C,h,w).

        Args:
            x_t: noised latents, (B,C,h,w).
            t: timesteps, (B,).
            text: encoded captions.
            residuals: injection point -> (B,C',h',w'), added to the features there.
            words: bias of image-to-text attention.
            modulations: injection point -> what changes the features there, after the residual.
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The repeated blocks: compiled and sharded one by one."""

    def recomputed_blocks(self) -> list[nn.Module]:
        """Blocks whose activations checkpointing drops; a network of diffusers checkpoints its own."""
        return self.blocks()

    def inputs(self, x_t: Tensor) -> Tensor:
        """x_t (B,C,h,w) -> what the first layer takes."""
        return x_t

    def set_full_inpaint_mask(self, blank: Callable[[int, int], Tensor], height: int, width: int) -> None:
        """For an inpainting backbone: mark the whole image as to be painted.

        Args:
            blank: Height and width of an image, in pixels -> latent (1,C,h,w) of a grey image.
            height: Of the training images, in pixels.
            width: Likewise.
        """

    def is_attention(self, name: str, kind: str) -> bool:
        """Whether a module's or parameter's name lies in an attention layer. kind: all, self or cross."""
        return any(part in name for part in self.attention_layers[kind])

    def lora_targets(self, network: nn.Module, kind: str) -> list[str]:
        """Names, within `network`, of the linear layers that LoRA adds to. kind: of attention, all, self or cross."""
        return [name for name, _ in network.named_modules()
                if name.endswith(self.projections) and self.is_attention(name, kind)]  # fmt: skip

    def add_lora(self, rank: int, kind: str) -> None:
        """Add low-rank adapters, which change nothing until they are trained. kind: of attention, all, self or cross."""
        from peft import LoraConfig, inject_adapter_in_model  # seconds to import, and few runs need it

        targets = self.lora_targets(self, kind)
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        inject_adapter_in_model(config, self)
        self.requires_grad_(True)  # peft freezes the rest, which `set_trainable` decides

    def lora_layers(self) -> dict[str, Tensor]:
        """The adapters as diffusers' load_lora_weights reads them; empty where there are none, or it can't read them."""
        return {}

    @contextmanager
    def watch_attention(self, watch: Callable[[Tensor], object]) -> Iterator[None]:
        """While open, `watch` is called with every image-to-text attention (B,h w,T), mean over heads."""
        yield
