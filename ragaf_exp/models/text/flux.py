"""Flux's text: the tokens of T5 and the pooled vector of CLIP."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextModel, T5EncoderModel

from ragaf_exp.models.loading.hub import Origin
from ragaf_exp.models.text.pipeline_text import Part, PipelineText, Segment

CLIP_L, T5_XXL = 768, 4096  # channels of the published encoders


class FluxText(PipelineText):
    """Text of Flux; arguments as in `PipelineText`. The pipeline pads T5's tokens, and the transformer attends to all."""

    main = "tokenizer_2"

    def parts(self) -> tuple[Part, ...]:
        return Part("text_encoder", CLIPTextModel, "tokenizer"), Part("text_encoder_2", T5EncoderModel, "tokenizer_2")

    def segments(self) -> tuple[Segment, ...]:
        return (Segment("tokenizer_2", self.max_tokens),)

    def widths(self) -> tuple[int, int]:
        clip, t5 = self.part_config("text_encoder"), self.part_config("text_encoder_2")
        return t5.get("d_model", T5_XXL), clip.get("hidden_size", CLIP_L)

    @staticmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        from diffusers import FluxPipeline

        return FluxPipeline(scheduler=None, vae=None, transformer=None, **named)

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, Tensor]:
        """Encode a caption by FluxPipeline.encode_prompt.

        Args:
            pipeline: Flux's pipeline.
            caption: The caption.
            device: Device of the encoders.

        Returns:
            Tokens (1,T,D) and the pooled vector (1,P).
        """
        tokens, pooled, _ = pipeline.encode_prompt([caption], device=device, max_sequence_length=self.max_tokens)
        return tokens, pooled
