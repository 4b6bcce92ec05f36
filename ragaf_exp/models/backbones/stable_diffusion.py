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
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, network
from ragaf_exp.models.loading.schedule import schedule_of

SD15 = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "attention_head_dim": 8,
    "cross_attention_dim": 768, "out_channels": 4,
}  # fmt: skip
MORE_CONDITIONS = ("addition_embed_type", "class_embed_type", "encoder_hid_dim", "time_cond_proj_dim")


class StableUNet(UNetBackbone):
    """The UNet of Stable Diffusion 1.x or 2.x, or a fine-tune of it. memory.tune selects which weights are trained.

    Args:
        channels: C, latent channels (wiring).
        text_width: D, channels of the text tokens (wiring).
        source: A folder or hub id with a subfolder unet/.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses Stable Diffusion 1.5's config.
        inpaint: The UNet takes 2 C + 1 input channels: x_t, a mask (1 = inpaint) and the masked image's latent.

    Raises:
        UserError: The source is missing or damaged, or does not fit the codec or the text encoder.
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
        self.register_buffer("masked_latent", None, persistent=False)  # (1,C,h,w) latent of a wholly masked image
        self.others: dict[tuple[int, int], Tensor] = {}  # latent size (h,w) -> the same at that size, encoded on demand
        self.blank: Callable[[int, int], Tensor] | None = None  # latent size -> latent of a grey image

    def set_full_inpaint_mask(self, blank: Callable[[int, int], Tensor], height: int, width: int) -> None:
        """Mask the whole image; as in diffusers' pipelines, the masked image is then grey.

        Args:
            blank: Function of an image's height and width in pixels that returns the latent (1,C,h,w) of a grey image.
            height: Height of the training images in pixels.
            width: Width of the training images in pixels.
        """
        if self.inpaint and torch.get_default_device().type != "meta":  # there the codec has no values
            self.masked_latent = blank(height, width)
            scale = height // self.masked_latent.shape[2]
            self.blank = lambda h, w: blank(h * scale, w * scale)  # copies of the network share the codec

    def inputs(self, x_t: Tensor) -> Tensor:
        """Return the UNet's input for x_t (B,C,h,w).

        Returns:
            x_t itself; for an inpainting UNet (B,2C+1,h,w), with a full mask where the task provides no mask.
        """
        if not self.inpaint or x_t.shape[1] > self.channels:
            return x_t
        empty = self.masked_latent is None
        masked = torch.zeros_like(x_t) if empty else self._masked_latent(x_t).to(x_t.dtype).expand_as(x_t)
        return torch.cat([x_t, torch.ones_like(x_t[:, :1]), masked], dim=1)

    def _masked_latent(self, x_t: Tensor) -> Tensor:
        """Return the latent (1,C,h,w) of a grey image at the size of x_t."""
        if self.blank is None or x_t.shape[2:] == self.masked_latent.shape[2:]:
            return self.masked_latent
        size = (x_t.shape[2], x_t.shape[3])
        if size not in self.others:
            self.others[size] = self.blank(*size).to(x_t.device)
        return self.others[size]


def check_fit(unet: UNet2DConditionModel, key: str, inputs: int, channels: int, text_width: int) -> None:
    """Check that a UNet fits the codec and the text encoder.

    Args:
        unet: The UNet.
        key: Config key and value that name the UNet, for messages.
        inputs: Required channels of the first layer.
        channels: C, latent channels of the codec.
        text_width: D, channels of the text tokens.

    Raises:
        UserError: A shape disagrees, or the UNet needs other conditions than text.
    """
    c = unet.config
    if (c.in_channels, c.out_channels) != (inputs, channels):
        inpainting = c.in_channels == 2 * c.out_channels + 1 and inputs == channels
        fix = "set backbone=sd15_inpaint" if inpainting else "use the codec that it was trained with"
        raise UserError(f"{key}: its UNet has {c.in_channels} input and {c.out_channels} output channels; this codec's "
                        f"latents of {channels} channels need {inputs} and {channels}; {fix}")  # fmt: skip
    if c.cross_attention_dim != text_width:
        raise UserError(f"{key}: its UNet attends to text tokens of {c.cross_attention_dim} channels, but the text encoder "
                        f"outputs {text_width}; use the text encoder that it was trained with")  # fmt: skip
    more = [name for name in MORE_CONDITIONS if c.get(name) is not None]
    if more:
        raise UserError(f"{key}: its UNet needs more conditions than text ({more[0]}={c[more[0]]}), as Stable Diffusion "
                        "XL's does; use one of Stable Diffusion 1.x or 2.x")  # fmt: skip
    for name, attn in unet.named_modules():
        if isinstance(attn, Attention) and (attn.added_kv_proj_dim is not None or attn.norm_cross is not None):
            raise UserError(f"{key}: the attention layer {name} differs from those of Stable Diffusion 1.x and 2.x; use a "
                            "UNet of one of these")  # fmt: skip
