"""The interface of denoiser backbones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.points import Modulation, Shape
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.part import PretrainedModule
from ragaf_exp.models.stored import FLOAT32

if TYPE_CHECKING:
    from ragaf_exp.models.backbones.controlnets.base import Control
    from ragaf_exp.models.swapping import SwappedBlocks

NO_MODULATIONS: Mapping[str, Modulation] = {}


class Backbone(PretrainedModule, ABC):
    """A denoising network that attends to text and whose features can be changed at injection points.

    Attributes:
        pretrained: The network starts from pretrained weights, so memory.tune selects what is trained in stage 1 too.
        stride: The height and width of latents must be multiples of it.
        extra_channels: Number of channels next to x_t that the first layer accepts from a task.
        reads_source: Whether `encode_source` does anything.
        needs_source: Whether it works only with a task that edits an image.
        takes_valid: Whether `forward` takes `valid`, the cells of its input that a task's hole does not hide.
        in_patch: Side in latent cells of the patches over which the features at `in` are laid out; 1 = a map.
        base: Storage of its frozen linear layers.
        control: The ControlNet that hint=controlnet trains; None if diffusers has none.
        schedule: Settings of the diffusion process that the network was pretrained with; None if there are none.
        swapped: The blocks whose weights are in main memory until their turn; None = none.
        cross_layers: Number of layers with image-to-text attention.
        attention_layers: Kind of attention (all, self, cross) -> substrings of the parameter names of these layers.
        projections: Suffixes of the names of the linear layers, within attention layers, that LoRA adapts.
    """

    pretrained: ClassVar[bool] = False
    stride: int = 1
    extra_channels: int = 0
    reads_source: ClassVar[bool] = False
    needs_source: ClassVar[bool] = False
    takes_valid: bool = False
    in_patch: int = 1
    base: str = FLOAT32
    control: ClassVar[type[Control] | None] = None
    schedule: dict[str, Any] | None = None
    swapped: SwappedBlocks | None = None
    cross_layers: int
    attention_layers: ClassVar[Mapping[str, tuple[str, ...]]]
    projections: ClassVar[tuple[str, ...]]

    @classmethod
    def check_source(cls, settings: Mapping[str, Any]) -> None:
        """Raise UserError if the source is that of another backbone. settings: config group `backbone`.

        The codec, the text encoder and the process have the same source by default. This is called before they are built.
        """

    @abstractmethod
    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Channels and resolution at every injection point, for latents of height x width."""

    @abstractmethod
    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        """Predict the diffusion target from noised latents.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps, (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), added to the features there.
            words: Bias of image-to-text attention.
            modulations: Injection point -> modulation of the features there, applied after the residual.

        Returns:
            The prediction, (B,C,h,w).
        """

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return the repeated blocks, which are compiled and sharded one by one."""

    def recomputed_blocks(self) -> list[nn.Module]:
        """Return the blocks to checkpoint, without those that diffusers checkpoints."""
        return self.blocks()

    def inputs(self, x_t: Tensor) -> Tensor:
        """Return the input of the first layer, (B,C',h,w), for x_t (B,C,h,w)."""
        return x_t

    def encode_source(self, image: Tensor, hole: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor | None:
        """Encode the image that a task edits as channels next to x_t. Only editing backbones do anything here.

        Args:
            image: (B,3,H,W) in [-1,1].
            hole: (B,1,H,W), above 0 = pixels that may change.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w), without gradients.

        Returns:
            (B,E,h,w), which `forward` expects behind the channels of x_t; None for other backbones.
        """
        return None

    def set_full_inpaint_mask(self, blank: Callable[[int, int], Tensor], height: int, width: int) -> None:
        """Mask the whole image. Only inpainting backbones do anything here.

        Args:
            blank: Function of an image's height and width in pixels that returns the latent (1,C,h,w) of a grey image.
            height: Height of the training images in pixels.
            width: Width of the training images in pixels.
        """

    def is_attention(self, name: str, kind: str) -> bool:
        """Return whether a module or parameter belongs to an attention layer of this kind: all, self or cross."""
        return any(part in name for part in self.attention_layers[kind])

    def lora_targets(self, network: nn.Module, kind: str) -> list[str]:
        """Return the names, within `network`, of the linear layers that LoRA adapts. kind: all, self or cross."""
        return [name for name, _ in network.named_modules()
                if name.endswith(self.projections) and self.is_attention(name, kind)]  # fmt: skip

    def add_lora(self, rank: int, kind: str) -> None:
        """Add low-rank adapters, which change nothing until they are trained. kind: all, self or cross attention."""
        from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import, and few runs need it

        targets = self.lora_targets(self, kind)
        config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
        inject_adapter_in_model(config, self)
        self.requires_grad_(True)  # peft freezes all other weights, but `set_trainable` selects what is trained

    def lora_layers(self) -> dict[str, Tensor]:
        """Return the adapters in the format of diffusers' load_lora_weights; empty if there are none or no such format."""
        return {}

    def write_lora(self, folder: Path, layers: dict[str, Tensor]) -> None:
        """Write the result of `lora_layers` as a file that load_lora_weights of the family's pipeline reads."""

    @contextmanager
    def watch_attention(self, watch: Callable[[Tensor], object]) -> Iterator[None]:
        """Call `watch` with every image-to-text attention map (B,h w,T), the mean over heads, while this is open."""
        yield
