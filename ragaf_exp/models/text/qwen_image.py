"""Qwen-Image's text: the last hidden states of Qwen2.5-VL for the pipeline's template, without the template's beginning."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration

from ragaf_exp.models.loading.hub import Origin
from ragaf_exp.models.text.pipeline_text import Part, PipelineText, Segment

QWEN_VL = 3584  # channels of the published encoder


@cache
def template() -> tuple[str, str, int]:
    """Return the pipeline's text before and after the caption, and the number of first tokens that it cuts off."""
    pipeline = QwenImageText.pipeline(Origin("text", ""), {"text_encoder": None, "tokenizer": None})
    before, after = pipeline.prompt_template_encode.split("{}")
    return before, after, pipeline.prompt_template_encode_start_idx


class QwenImageText(PipelineText):
    """Text of Qwen-Image; arguments as in `PipelineText`. The transformer attends to the caption's own tokens."""

    main = "tokenizer"

    def parts(self) -> tuple[Part, ...]:
        return (Part("text_encoder", Qwen2_5_VLForConditionalGeneration, "tokenizer"),)

    def segments(self) -> tuple[Segment, ...]:
        before, after, dropped = template()
        return (Segment("tokenizer", self.max_tokens, before, after, dropped),)

    def widths(self) -> tuple[int, int]:
        config = self.part_config("text_encoder")
        return config.get("text_config", config).get("hidden_size", QWEN_VL), 0

    @staticmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        from diffusers import QwenImagePipeline

        return QwenImagePipeline(scheduler=None, vae=None, transformer=None, **named)

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, None]:
        """Encode a caption by QwenImagePipeline.encode_prompt.

        Args:
            pipeline: Qwen-Image's pipeline.
            caption: The caption.
            device: Device of the encoder.

        Returns:
            Tokens (1,T,D), and None.
        """
        return pipeline.encode_prompt([caption], device, max_sequence_length=self.max_tokens)[0], None

    def attended(self, mask: Tensor) -> None:
        return None
