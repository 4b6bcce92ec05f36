"""Text as a message of a chat, in the template of a language model's tokenizer."""

from __future__ import annotations

from typing import ClassVar

from ragaf_exp.models.text.pipeline_text import PipelineText, Segment

MARK = "CAPTION"  # shows where the chat template puts the message


class ChatText(PipelineText):
    """Base class of text whose encoder reads the caption as a user's message; arguments as in `PipelineText`.

    Attributes:
        thinking: What the template's switch enable_thinking is set to.
    """

    main = "tokenizer"
    thinking: ClassVar[bool]

    def segments(self) -> tuple[Segment, ...]:
        if not self.origin.source:
            return (Segment("tokenizer", self.max_tokens),)
        chat = [{"role": "user", "content": MARK}]
        tokenizer = self.encoders.tokenizer("tokenizer")
        before, after = tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=self.thinking
        ).split(MARK)
        return (Segment("tokenizer", self.max_tokens, before, after),)
