"""Checks of captions against the text encoder of a config: length and unknown words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig

from ragaf_exp.data.audit.findings import NOTE, WARNING, Finding
from ragaf_exp.data.sources.records import Record

FITTED = 4000  # captions to which a tokenizer is fitted, as for training
CHECKED = 20_000  # captions that are tokenized
SHOWN = 8


def caption_findings(cfg: DictConfig, source: Any) -> list[Finding]:
    """Find captions that the config's text encoder would cut, and words that it does not know.

    Args:
        cfg: The config.
        source: A data source with records.
    """
    import torch

    from ragaf_exp.config.build import build, locate

    train = source.split("train")
    if not len(train):
        return []
    kind = locate(cfg.text._target_, "text")
    tokenizer = kind.tokenizer_for(cfg.text, lambda: train.captions(FITTED))
    with torch.device("meta"):
        text = build(cfg.text, "text", tokenizer=tokenizer)
    captions = [(record, caption) for record in source.records for caption in record.captions if caption.strip()]
    return list(_findings(text, captions[:CHECKED], len(captions)))


def _findings(text: Any, captions: list[tuple[Record, str]], total: int) -> Iterator[Finding]:
    cut: dict[str, str] = {}
    unknown: Counter[str] = Counter()
    for record, caption in captions:
        unknown.update(text.unknown_words(caption))
        spans = text.token_spans(caption)
        end = max((stop for _, stop in spans), default=0)
        if len(spans) >= text.max_tokens and caption[end:].strip():
            cut.setdefault(record.key, caption)
    of = f"of the {len(captions)} captions checked" if len(captions) < total else f"of {total} captions"
    if cut:
        yield Finding(WARNING, "long captions", len(cut), f"Longer than the encoder's {text.max_tokens} tokens, {of}: the "
                      "rest is not read.", [f"{key}: {caption[:80]}" for key, caption in list(cut.items())[:SHOWN]],
                      list(cut)[:SHOWN])  # fmt: skip
    if unknown:
        words = [f"{word}: {count}" for word, count in unknown.most_common(SHOWN)]
        meaning = f"{len(unknown)} words that the tokenizer does not know, {of}."
        yield Finding(NOTE, "unknown words", sum(unknown.values()), meaning, words)
