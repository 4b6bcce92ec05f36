"""Qwen-Image-Edit's text: hidden states of Qwen2.5-VL for the pipeline's template with the edited image in it.

The tokens of the image, with the marks around them, come first. Qwen2.5-VL is causal, so they do not depend on the caption.
"""

from __future__ import annotations

import hashlib
from copy import copy
from functools import cache, cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2VLProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.tensors import brief, to_uint8
from ragaf_exp.data.lengths import LONGEST
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, fetch
from ragaf_exp.models.text.pipeline_text import Segment
from ragaf_exp.models.text.qwen_image import QwenImageText

VISION = "<|vision_start|><|image_pad|><|vision_end|>"  # shows where the template has the image
PROCESSOR = "processor"  # subfolder of the source with the settings of images
TOKEN = 28  # side in pixels of the part of an image that is one token
MARKS = 8  # tokens of the template around those of an image, at most
IMAGES = 16  # encoded pairs of caption and image that are held in memory, of up to 25 MB each
MULTIPLE = 32  # sides of resized images are multiples of it, as in diffusers' calculate_dimensions


class QwenImageEditText(QwenImageText):
    """Text of Qwen-Image-Edit. The transformer attends to the tokens of image and caption; regions attend to the caption's.

    Region prompts are encoded without the image.

    Args:
        tokenizer: Tokenizer of the run folder (wiring).
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained; none plans without a source, and encodes nothing.
        max_tokens: Number of the caption's tokens, padding included; longer captions are truncated.
        image_side: Side in pixels of a square with about the area of the image that the encoder reads; 0 = the given size.

    Raises:
        UserError: The source is missing or damaged, or lacks the encoder or its processor.
    """

    reads_image = True
    editor: ClassVar[str] = "QwenImageEditPipeline"
    introduction: ClassVar[str] = ""  # text that the pipeline puts in front of the caption, in addition to its template

    def __init__(
        self, tokenizer: Tokenizer, source: str = "", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, max_tokens: limits.Tokens = 256, image_side: limits.Resolution = 0,
    ):  # fmt: skip
        self.image_side = image_side
        super().__init__(tokenizer, source, revision, offline, variant, weights, max_tokens)

    @classmethod
    def pipeline(cls, origin: Origin, named: dict[str, Any]) -> Any:
        import diffusers

        processor = read_processor(origin) if origin.source else None
        return getattr(diffusers, cls.editor)(scheduler=None, vae=None, transformer=None, processor=processor, **named)

    def folders(self) -> list[str]:
        """Return the subfolders of the source that are read."""
        return [*super().folders(), PROCESSOR]

    def check(self) -> None:
        """Raise UserError if the source lacks the encoder or its processor."""
        super().check()
        if self.origin.source:
            read_processor(self.origin)

    def segments(self) -> tuple[Segment, ...]:
        before, after = self._template
        return (Segment("tokenizer", self.max_tokens, before, after, self._dropped),)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines the tokens of a caption and an image."""
        images = read_processor(self.origin).image_processor.to_json_string()
        return json_digest([super().fingerprint, images, self.image_side], 64)

    def read(self, captions: list[str], keep: Tensor | None, image: Tensor | None) -> Text:
        """Encode captions together with the images that they edit.

        Args:
            captions: B captions.
            keep: (B,) bool, False drops the caption; None drops none.
            image: (B,3,H,W) in [-1,1]; None encodes the captions alone.

        Returns:
            Tokens of captions and images.
        """
        if image is None:
            return self(captions, keep)
        if self.home.is_meta:
            return self._planned_with(image)
        given = [True] * len(captions) if keep is None else keep.tolist()
        captions = [caption if has else "" for caption, has in zip(captions, given, strict=True)]
        rows = [self._pair(*pair) for pair in zip(captions, to_uint8(image), strict=True)]
        words, shown = (torch.stack(part) for part in zip(*rows, strict=True))
        return Text(words, self.tokenize(captions)[1], image=shown).each(lambda x: x.to(self.home.device))

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, None]:
        """Encode a caption without an image by the pipeline's encode_prompt.

        Args:
            pipeline: The pipeline.
            caption: The caption.
            device: Device of the encoder.

        Returns:
            Tokens (1,T,D), and None.
        """
        alone = copy(pipeline)
        alone.prompt_template_encode = pipeline.prompt_template_encode.replace(VISION, "")
        return self._split(alone.encode_prompt([caption], device=device)[0], caption)[0], None

    def _pair(self, caption: str, picture: np.ndarray) -> tuple[Tensor, Tensor]:
        """Encode a caption (T,D) and an image (M,D), in main memory. picture: (H,W,3) uint8."""
        caption, device = caption[:LONGEST], self.encoders.device
        digest = (hashlib.sha256(picture.tobytes()).hexdigest(), picture.shape)

        def encode() -> tuple[Tensor, Tensor]:
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                tokens = self.encoders.whole().encode_prompt([caption], image=[self._resized(picture)], device=device)[0]
            words, shown = (x[0].float().cpu() for x in self._split(tokens, caption))
            padded = torch.zeros(self.max_tokens, words.shape[-1])
            padded[: len(words)] = words
            return padded, shown

        return self.encoders.encoded((caption, self.max_tokens, self.image_side, *digest), encode, IMAGES)

    def _split(self, tokens: Tensor, caption: str) -> tuple[Tensor, Tensor]:
        """Split the pipeline's tokens (1,L,D) into those of the caption, at most max_tokens, and those in front of it."""
        (segment,) = self.segments()
        whole = self.encoders.tokenizer("tokenizer")(segment.before + caption + segment.after)["input_ids"]
        first = tokens.shape[1] - (len(whole) - segment.dropped)
        return tokens[:, first : first + self.max_tokens], tokens[:, :first]

    def _resized(self, picture: np.ndarray) -> Image.Image:
        height, width = self._read_size(*picture.shape[:2])
        image = Image.fromarray(picture)
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)

    def _read_size(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of the image that the encoder reads."""
        if not self.image_side:
            return height, width
        scale = self.image_side / (height * width) ** 0.5
        return (max(1, round(scale * height / MULTIPLE)) * MULTIPLE, max(1, round(scale * width / MULTIPLE)) * MULTIPLE)

    def _planned_with(self, image: Tensor) -> Text:
        """Return text of the largest size on the meta device, with an image of this size."""
        text = self._planned(len(image))
        height, width = smart_resize(*self._read_size(image.shape[2], image.shape[3]))
        count = (height // TOKEN) * (width // TOKEN) + MARKS
        return Text(text.tokens, text.mask, image=torch.zeros(len(image), count, self.width, device="meta"))

    @cached_property
    def _template(self) -> tuple[str, str]:
        """The pipeline's text before and after the caption, with one token in place of the image."""
        before, after = template_of(type(self)).split("{}")
        return before + self.introduction, after

    @cached_property
    def _dropped(self) -> int:
        """Number of tokens before the caption."""
        return len(self.encoders.tokenizer("tokenizer")(self._template[0])["input_ids"]) if self.origin.source else 0


class QwenImageEditPlusText(QwenImageEditText):
    """Text of Qwen-Image-Edit-2509 and 2511 with one edited image; arguments as in `QwenImageEditText`.

    The pipeline's image_side is 384.
    """

    editor = "QwenImageEditPlusPipeline"
    introduction = f"Picture 1: {VISION}"


@cache
def template_of(kind: type[QwenImageEditText]) -> str:
    """Return the template of a pipeline."""
    return kind.pipeline(Origin("text", ""), {"text_encoder": None, "tokenizer": None}).prompt_template_encode


def read_processor(origin: Origin) -> Qwen2VLProcessor:
    """Load the processor of images of a source.

    Raises:
        UserError: There is none, or it is damaged.
    """
    folder = fetch(origin, [f"{PROCESSOR}/*"]) / PROCESSOR
    if not folder.is_dir():
        raise UserError(f"{origin.key}: has no folder processor, as Qwen-Image-Edit has; take backbone=qwen_image, or "
                        "fetch the whole folder again")  # fmt: skip
    try:
        return Qwen2VLProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the loaders raise errors of many types
        raise UserError(f"{origin.key}: the processor in {folder} can't be loaded ({brief(error)}); fetch the whole folder "
                        "again") from error  # fmt: skip
