"""Stable Diffusion's UNets (config group `backbone`): any folder or hub id in diffusers' layout."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import Tensor

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.backbones import attention
from ragaf_exp.models.backbones.unet_backbone import UNetBackbone
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, network, on_meta
from ragaf_exp.models.loading.schedule import schedule_of

SD15 = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8,
    "cross_attention_dim": 768, "out_channels": 4,
}  # fmt: skip
MORE_CONDITIONS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim", "time_cond_proj_dim")


class StableUNet(UNetBackbone):
    """The UNet of Stable Diffusion 1.x, 2.x or of its fine-tunes; what of it is trained, memory.tune says.

    channels: latent channels, text_width: D (wiring). source: a folder or hub id that holds unet/. revision, variant:
    of a hub id (branch, tag or commit; "" = main) and of its files (as fp16). offline: never touch the network.
    weights: pretrained, or none for random ones by the config; without a source by Stable Diffusion 1.5's numbers.
    inpaint: a UNet of 2 C + 1 input channels: x_t, a mask (1 = to be painted) and the latent of what is kept.
    """

    pretrained = True

    def __init__(
        self, channels: int, text_width: int, source: str = "", revision: str = "", offline: bool = False,
        variant: str = "", weights: str = PRETRAINED, inpaint: bool = False,
    ):  # fmt: skip
        super().__init__()
        origin = Origin("backbone", source, revision, offline, variant, weights)
        builtin = {**SD15, "in_channels": 9 if inpaint else 4}
        self.unet, self.source = network(UNet2DConditionModel, origin, "unet", builtin)
        check_fit(self.unet, origin.key, 2 * channels + 1 if inpaint else channels, channels, text_width)
        self.schedule = schedule_of(origin)
        self.cross_layers = attention.install(self.unet)
        self.inpaint, self.channels = inpaint, channels
        self.extra_channels = channels + 1 if inpaint else 0
        self.register_buffer("kept", None, persistent=False)  # (1,C,h,w) latent of an image of which nothing is kept
        self.others: dict[tuple[int, int], Tensor] = {}  # the same at other sizes (h,w), encoded when needed
        self.blank: Callable[[int, int], Tensor] | None = None  # size of a latent -> the latent of a grey image

    def set_full_inpaint_mask(self, blank: Callable[[int, int], Tensor], height: int, width: int) -> None:
        """As diffusers' pipelines: what is kept of an image to be painted wholly is a grey one."""
        if self.inpaint and not on_meta():
            self.kept = blank(height, width)
            scale = height // self.kept.shape[2]
            self.blank = lambda h, w: blank(h * scale, w * scale)  # a function: copies of the network share the codec

    def inputs(self, x_t: Tensor) -> Tensor:
        """x_t (B,C,h,w) -> itself, or (B,2C+1,h,w) for an inpainting UNet: all is painted, unless a task gave both."""
        if not self.inpaint or x_t.shape[1] > self.channels:
            return x_t
        kept = torch.zeros_like(x_t) if self.kept is None else self._kept(x_t).to(x_t.dtype).expand_as(x_t)
        return torch.cat([x_t, torch.ones_like(x_t[:, :1]), kept], dim=1)

    def _kept(self, x_t: Tensor) -> Tensor:
        """(1,C,h,w) latent of a grey image at the size of x_t."""
        if self.blank is None or x_t.shape[2:] == self.kept.shape[2:]:
            return self.kept
        size = (x_t.shape[2], x_t.shape[3])
        if size not in self.others:
            self.others[size] = self.blank(*size).to(x_t.device)
        return self.others[size]


def check_fit(unet: UNet2DConditionModel, key: str, inputs: int, channels: int, text_width: int) -> None:
    """UserError with the shapes that disagree. inputs: channels of the first layer that are wanted."""
    c = unet.config
    if (c.in_channels, c.out_channels) != (inputs, channels):
        inpainting = c.in_channels == 2 * c.out_channels + 1 and inputs == channels
        mend = "take backbone=sd15_inpaint for it" if inpainting else "take the codec that it was trained with"
        raise UserError(f"{key}: its UNet takes {c.in_channels} channels and gives {c.out_channels}; with this codec's "
                        f"latents of {channels} it should take {inputs} and give {channels}; {mend}")  # fmt: skip
    if c.cross_attention_dim != text_width:
        raise UserError(f"{key}: its UNet attends to tokens {c.cross_attention_dim} wide, and text gives them "
                        f"{text_width} wide; take the text encoder that it was trained with")  # fmt: skip
    more = [name for name in MORE_CONDITIONS if c.get(name) is not None]
    if more:
        raise UserError(f"{key}: its UNet asks for more than a text ({more[0]}={c[more[0]]}), as Stable Diffusion XL's; "
                        "take one of the 1.x or 2.x kind")  # fmt: skip
    for name, attn in unet.named_modules():
        if isinstance(attn, Attention) and (attn.added_kv_proj_dim is not None or attn.norm_cross is not None):
            raise UserError(f"{key}: {name} is an attention layer of another kind than Stable Diffusion 1.x's and 2.x's")
