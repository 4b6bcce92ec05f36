"""Stable Diffusion 3's text: the tokens of two CLIP encoders, side by side, followed by those of T5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import CLIPTextModelWithProjection, T5EncoderModel

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, read_config
from ragaf_exp.models.text.pipeline_text import Part, PipelineText, Segment

CLIP_TOKENS = 77
CLIP_POOLED, T5_XXL = 768 + 1280, 4096  # channels of the published encoders


class SD3Text(PipelineText):
    """Text of Stable Diffusion 3 and 3.5. The transformer attends to padding too.

    Args:
        tokenizer: Tokenizer of the run folder (wiring).
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained; none plans without a source, and encodes nothing.
        max_tokens: Number of T5's tokens, padding included; longer captions are truncated.
        t5: Whether to use T5; without it, its tokens are zero, as in the pipeline.

    Raises:
        UserError: The source is missing or damaged, or lacks an encoder.
    """

    main = "tokenizer"
    leading = 1

    def __init__(
        self, tokenizer: Tokenizer, source: str = "", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, max_tokens: limits.Tokens = 256, t5: bool = True,
    ):  # fmt: skip
        self.t5 = t5
        super().__init__(tokenizer, source, revision, offline, variant, weights, max_tokens)

    def parts(self) -> tuple[Part, ...]:
        clip = (Part("text_encoder", CLIPTextModelWithProjection, "tokenizer"),
                Part("text_encoder_2", CLIPTextModelWithProjection, "tokenizer_2"))  # fmt: skip
        return (*clip, Part("text_encoder_3", T5EncoderModel, "tokenizer_3")) if self.t5 else clip

    def check(self) -> None:
        """Raise UserError if the source lacks an encoder, of which T5 is optional."""
        root = Path(self.origin.source).expanduser()
        if self.t5 and self.origin.source and root.is_dir() and not (root / "text_encoder_3").is_dir():
            raise UserError(f"{self.origin.key}: holds no text_encoder_3, which is T5; set text.t5=false, or fetch the "
                            "whole folder again")  # fmt: skip
        super().check()

    def segments(self) -> tuple[Segment, ...]:
        return Segment("tokenizer", CLIP_TOKENS), Segment("tokenizer_3" if self.t5 else "", self.max_tokens)

    def widths(self) -> tuple[int, int]:
        pooled = [self.part_config(folder).get("projection_dim", 0) for folder in ("text_encoder", "text_encoder_2")]
        transformer = read_config(self.origin, "transformer") if self.origin.source else {}
        return transformer.get("joint_attention_dim", T5_XXL), sum(pooled) or CLIP_POOLED

    @staticmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

        with torch.device("meta"):  # the pipeline reads the width of T5's tokens from its config
            transformer = SD3Transformer2DModel.from_config(read_config(origin, "transformer"))
        absent = dict.fromkeys({"text_encoder_3", "tokenizer_3"} - named.keys())
        return StableDiffusion3Pipeline(transformer=transformer, scheduler=None, vae=None, **named, **absent)

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Encode a caption by StableDiffusion3Pipeline.encode_prompt.

        Args:
            pipeline: Stable Diffusion 3's pipeline.
            caption: The caption.
            device: Device of the encoders.

        Returns:
            Tokens (1,77+T,D) and the pooled vector (1,P). Without T5, the zeros that the pipeline appends are included.
        """
        tokens, _, pooled, _ = pipeline.encode_prompt(
            [caption], None, None, device=device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
        )
        return tokens, pooled
