"""Base class of pretrained transformers by diffusers' classes (config group `backbone`)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.diffusion.base import FLOW
from ragaf_exp.models.backbones.attention import WordBias
from ragaf_exp.models.backbones.base import NO_MODULATIONS, Backbone
from ragaf_exp.models.backbones.points import Injected, Modulation, Shape
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, network, read_config
from ragaf_exp.models.stored import store_linears

if TYPE_CHECKING:
    from ragaf_exp.models.backbones.controlnets.transformer import TransformerControl

FIRST, BLOCK = "in", "block."
OPTIONS = {  # class of diffusers -> the option of this group
    "SD3Transformer2DModel": "sd3", "FluxTransformer2DModel": "flux", "QwenImageTransformer2DModel": "qwen_image",
    "ZImageTransformer2DModel": "z_image", "Flux2Transformer2DModel": "flux2",
}  # fmt: skip
TIMESTEPS = 1000  # of the flows that these transformers were trained with


class PretrainedTransformer(Backbone):
    """A transformer of diffusers that predicts the velocity of a flow. memory.tune selects which weights are trained.

    Injection points are `in`, the embedded tokens, and `block.i`, the image tokens after a block. At `in`, the channels of
    a token are laid out on the latent cells that it covers, so that conditions at the latent's resolution equal further
    input channels of the embedding. Hooks add the conditions; diffusers' code runs unchanged.

    Args:
        channels: C, latent channels (wiring).
        text_width: D, channels of the text tokens (wiring).
        pooled_width: P, channels of the pooled text, 0 = none (wiring).
        base_storage: Storage of the linear layers of the blocks: float32, bfloat16, float8, int8 or nf4 (wiring).
        source: A folder or hub id with a subfolder transformer/.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses the published model's config.
        every: Number of blocks per injection point.

    Raises:
        UserError: The source is missing or damaged, is of another family, or does not fit the codec or the text encoder.
    """

    pretrained = True
    stride = in_patch = 2
    cross_layers = 0  # attention takes no bias
    projections = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
                   "to_qkv_mlp_proj")  # fmt: skip
    attention_layers = {"all": (".attn.", ".attn2."), "self": (".to_q", ".to_k", ".to_v", ".to_out"),
                        "cross": (".add_", ".to_add_")}  # fmt: skip
    kind: ClassVar[Any]  # class of diffusers
    pipeline: ClassVar[str]  # class of diffusers that loads the LoRA
    control: ClassVar[type[TransformerControl]]
    builtin: ClassVar[dict[str, Any]]  # the published model's config

    def __init__(
        self, channels: int, text_width: int, pooled_width: int, base_storage: str, source: str = "", revision: str = "",
        offline: bool = False, variant: str = "", weights: str = PRETRAINED, every: limits.Layers = 1,
    ):  # fmt: skip
        super().__init__()
        at_least("backbone", 1, every=every)
        origin = Origin("backbone", source, revision, offline, variant, weights)
        self.net, self.source = network(self.kind, origin, "transformer", self.builtin)
        store_linears(self.blocks(), base_storage)
        self.base = base_storage
        self.net._supports_gradient_checkpointing = False  # `recomputed_blocks` does it, outside of the hooks
        self.channels, self.every = channels, every
        self.schedule = {"prediction_type": FLOW} if source and weights == PRETRAINED else None
        self._check_fit(origin.key, text_width, pooled_width)

    net: Any

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of a token."""

    @abstractmethod
    def needs(self) -> dict[str, int]:
        """Return latent channels, and the widths of text tokens and pooled text, that the network was built for."""

    @abstractmethod
    def embedder(self) -> nn.Module:
        """Return the module whose output are the embedded image tokens, (B,L,width)."""

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """Return all blocks."""

    def tapped(self) -> list[nn.Module]:
        """Return the blocks that injection points can follow, in order of execution."""
        return self.blocks()

    @abstractmethod
    def predict(self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor]) -> Tensor:
        """Call the network as the family's pipeline does.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), of which those of a ControlNet are used.

        Returns:
            The velocity, (B,C,h,w).
        """

    def change_output(self, output: Any, count: int, change: Callable[[Tensor], Tensor]) -> Any:
        """Apply `change` to the image tokens in a block's output.

        Args:
            output: Text tokens and image tokens.
            count: Number of tokens of the image, which may be followed by those of other images.
            change: Maps tokens (B,count,width) to tokens of the same shape.

        Returns:
            The changed output.
        """
        text, image = output
        return text, change_first(image, count, change)

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError if latents of height x width are too large."""

    def shapes(self, height: int, width: int) -> dict[str, Shape]:
        """Return channels and resolution at every injection point, for latents of height x width."""
        self.check_size(height, width)
        grid = (self.width, height // self.stride, width // self.stride)
        shapes: dict[str, Shape] = {FIRST: (self.width // self.stride**2, height, width)}
        return shapes | {point: grid for point in self._points()}

    def forward(
        self, x_t: Tensor, t: Tensor, text: Text, residuals: Mapping[str, Tensor], words: WordBias | None = None,
        modulations: Mapping[str, Modulation] = NO_MODULATIONS,
    ) -> Tensor:  # fmt: skip
        """Predict the velocity for latents of any height and width that are multiples of the patch size.

        Args:
            x_t: Noised latents, (B,C,h,w).
            t: Timesteps in [0, 1000], (B,).
            text: Encoded captions.
            residuals: Injection point -> (B,C',h',w'), added to the features there. diffusers adds those of a ControlNet.
            words: Not used: the attention of these networks takes no bias.
            modulations: Injection point -> modulation of the features there, applied after the residual.

        Returns:
            The prediction, (B,C,h,w).
        """
        size = (x_t.shape[2] // self.stride, x_t.shape[3] // self.stride)
        with self._injecting(Injected(residuals, modulations), size):
            return self.predict(x_t, t, text, residuals)

    def add_lora(self, rank: int, kind: str) -> None:
        from peft import LoraConfig  # takes seconds to import, and few runs need it

        targets = self.lora_targets(self.net, kind)
        self.net.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets))

    def lora_layers(self) -> dict[str, Tensor]:
        if not getattr(self.net, "peft_config", None):
            return {}
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(self.net)
        return {name: x.detach().cpu().contiguous() for name, x in state.items()}

    def write_lora(self, folder: Path, layers: dict[str, Tensor]) -> None:
        import diffusers

        getattr(diffusers, self.pipeline).save_lora_weights(folder, transformer_lora_layers=layers)

    def _points(self) -> dict[str, nn.Module]:
        """Map the injection points after blocks to these blocks."""
        return {f"{BLOCK}{i}": block for i, block in enumerate(self.tapped()) if (i + 1) % self.every == 0}

    @contextmanager
    def _injecting(self, at: Injected, size: tuple[int, int]) -> Iterator[None]:
        """Change the tokens at the injection points while this is open. size: height and width of the token grid."""
        changed = {*at.residuals, *at.modulations}
        with ExitStack() as stack:
            if FIRST in changed:
                hook = partial(self._after_embedding, at, size)
                stack.callback(self.embedder().register_forward_hook(hook).remove)
            for point, block in self._points().items():
                if point in changed:
                    hook = partial(self._after_block, at, point, size)
                    stack.callback(block.register_forward_hook(hook).remove)
            yield

    def _after_embedding(self, at: Injected, size: tuple[int, int], module: nn.Module, args: Any, output: Tensor) -> Tensor:
        def change(tokens: Tensor) -> Tensor:  # through maps of (B,width/stride^2,h,w)
            return pack(at.on_map(FIRST, unpack(tokens, size, self.stride)), self.stride)

        return change_first(output, size[0] * size[1], change)

    def _after_block(
        self, at: Injected, point: str, size: tuple[int, int], module: nn.Module, args: Any, output: Any
    ) -> Any:
        return self.change_output(output, size[0] * size[1], lambda tokens: at.on_tokens(point, tokens, size))

    @classmethod
    def check_source(cls, settings: Mapping[str, Any]) -> None:
        """Raise UserError if the source holds a transformer of another class. settings: config group `backbone`."""
        s = settings
        origin = Origin("backbone", s["source"], s["revision"], s["offline"], s["variant"], s["weights"])
        if not origin.source:
            return
        config = read_config(origin, "transformer")
        name, wanted = config.get("_class_name"), cls.kind.__name__
        if name != wanted:
            fix = f"take backbone={OPTIONS[name]}" if name in OPTIONS else f"known are {', '.join(OPTIONS)}"
            raise UserError(f"{origin.key}: its transformer is a {name}, not a {wanted}; {fix}")
        cls.check_config(config, origin.key)

    @classmethod
    def check_config(cls, config: Mapping[str, Any], key: str) -> None:
        """Raise UserError if a transformer of this class was made for other input. key: config key of the source."""

    def _check_fit(self, key: str, text_width: int, pooled_width: int) -> None:
        """Raise UserError if the network was built for other latents or another text."""
        given = {"latent channels": self.channels, "channels of text tokens": text_width,
                 "channels of pooled text": pooled_width}  # fmt: skip
        for (what, has), needs in zip(given.items(), self.needs().values(), strict=True):
            if has != needs:
                group = "codec" if what == "latent channels" else "text"
                raise UserError(f"{key}: its transformer takes {needs} {what}, but {group} gives {has}; take the {group} "
                                "that it was trained with, the default of this backbone")  # fmt: skip


def change_first(tokens: Tensor, count: int, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply `change` to the first tokens of a sequence.

    Args:
        tokens: (B,L,width).
        count: Number of tokens to change.
        change: Maps tokens (B,count,width) to tokens of the same shape.

    Returns:
        (B,L,width).
    """
    if tokens.shape[1] == count:
        return change(tokens)
    return torch.cat([change(tokens[:, :count]), tokens[:, count:]], dim=1)


class SeesImageTokens(Backbone):
    """An editing transformer that sees the tokens of the edited image behind those of x_t."""

    reads_source = True

    def encode_source(self, image: Tensor, hole: Tensor, encode: Callable[[Tensor], Tensor]) -> Tensor:
        """Encode the edited image as latents.

        Args:
            image: (B,3,H,W) in [-1,1].
            hole: Not used: the network has no input for it.
            encode: Images (B,3,H,W) in [-1,1] -> latents (B,C,h,w), without gradients.

        Returns:
            (B,C,h,w).
        """
        return encode(image)


def pack(latents: Tensor, patch: int) -> Tensor:
    """Arrange latents (B,C,h,w) as tokens (B,h w / patch^2, C patch^2), in the order of diffusers' pipelines."""
    return F.pixel_unshuffle(latents, patch).flatten(2).transpose(1, 2)


def unpack(tokens: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Arrange tokens (B,L,C patch^2) as latents (B,C,h,w).

    Args:
        tokens: Tokens in row-major order.
        size: Height and width of the token grid.
        patch: Side of a token in latent cells.

    Returns:
        (B,C,h,w).
    """
    return F.pixel_shuffle(tokens.transpose(1, 2).unflatten(2, size), patch)


def positions(size: tuple[int, int], device: torch.device, frame: int = 0) -> Tensor:
    """Return (frame, row, column) of each token of a grid.

    Args:
        size: Height and width of the grid.
        device: Device of the result.
        frame: Number of the image.

    Returns:
        (L,3) float32.
    """
    rows, columns = (torch.arange(side, device=device, dtype=torch.float32) for side in size)
    first = torch.full((1,), float(frame), device=device)
    return torch.stack(torch.meshgrid(first, rows, columns, indexing="ij"), dim=-1).flatten(0, 2)
