"""Flux.2 klein's text: hidden states of three layers of Qwen3 for the caption as a message of a chat."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Qwen3ForCausalLM

from ragaf_exp.models.loading.hub import Origin
from ragaf_exp.models.text.chat import ChatText
from ragaf_exp.models.text.pipeline_text import Part
from ragaf_exp.models.text.z_image import QWEN3

LAYERS = 3  # whose hidden states the pipeline puts side by side


class Flux2Text(ChatText):
    """Text of Flux.2 klein; arguments as in `PipelineText`. The pipeline pads it, and the transformer attends to all."""

    thinking = False

    def parts(self) -> tuple[Part, ...]:
        return (Part("text_encoder", Qwen3ForCausalLM, "tokenizer"),)

    def widths(self) -> tuple[int, int]:
        return LAYERS * self.part_config("text_encoder").get("hidden_size", QWEN3), 0

    @staticmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        from diffusers import Flux2KleinPipeline

        return Flux2KleinPipeline(scheduler=None, vae=None, transformer=None, **named)

    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, None]:
        """Encode a caption by Flux2KleinPipeline.encode_prompt.

        Args:
            pipeline: The pipeline of Flux.2 klein.
            caption: The caption.
            device: Device of the encoder.

        Returns:
            Tokens (1,T,D), and None.
        """
        tokens, _ = pipeline.encode_prompt([caption], device=device, max_sequence_length=self.max_tokens)
        return tokens, None
