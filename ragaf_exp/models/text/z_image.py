"""Z-Image's text: hidden states of Qwen3 for the caption as a message of a chat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3Model

from ragaf_exp.models.loading.hub import Origin
from ragaf_exp.models.text.chat import ChatText
from ragaf_exp.models.text.pipeline_text import Part

QWEN3 = 2560  # channels of the published encoder


class ZImageText(ChatText):
    """Text of Z-Image; arguments as in `PipelineText`. The transformer attends to the caption's own tokens."""

    thinking = True

    def parts(self) -> tuple[Part, ...]:
        return (Part("text_encoder", Qwen3Model, "tokenizer"),)

    def widths(self) -> tuple[int, int]:
        return self.part_config("text_encoder").get("hidden_size", QWEN3), 0

    @staticmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        from diffusers import ZImagePipeline

        return ZImagePipeline(scheduler=None, vae=None, transformer=None, **named)

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, None]:
        """Encode a caption by ZImagePipeline.encode_prompt.

        Args:
            pipeline: Z-Image's pipeline.
            caption: The caption.
            device: Device of the encoder.

        Returns:
            Tokens (1,T,D), and None.
        """
        rows, _ = pipeline.encode_prompt(
            [caption], device, do_classifier_free_guidance=False, max_sequence_length=self.max_tokens
        )
        return rows[0][None], None

    def attended(self, mask: Tensor) -> None:
        return None
