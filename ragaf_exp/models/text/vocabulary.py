"""Unknown words of captions, warnings about them, and limits on the length of captions."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from tokenizers import Encoding, Tokenizer

from ragaf_exp.data.lengths import LONGEST

log = logging.getLogger(__name__)
MOST = 2_000_000  # maximum number of characters that a tokenizer is trained on, which takes seconds
RUN = re.compile(r"\S{100}")  # training takes time quadratic in a word's length
NAMED = 50  # maximum number of unknown words and truncations that are reported per tokenizer
LAST = "captions: further unknown words and cuts are not listed"
SHOWN = 8  # maximum number of words in one warning
TOKENIZERS = 16  # cache size; the Tokenizer class of older versions allows no weak references


def fitting(captions: Iterable[str]) -> Iterator[str]:
    """Yield the captions for training a tokenizer, with limits on captions, words and the total length."""
    total = 0
    for caption in captions:
        yield RUN.sub(r"\g<0> ", caption[:LONGEST])
        total += len(caption[:LONGEST])
        if total > MOST:
            return


def unknown_words(tokenizer: Tokenizer, encoding: Encoding, caption: str) -> dict[int, str]:
    """Find the words of a caption that the tokenizer has no tokens for.

    A word is unknown if any of its characters is, such as é in "café".

    Args:
        tokenizer: The tokenizer.
        encoding: The encoded caption.
        caption: The caption.

    Returns:
        Index of the word in `encoding.word_ids` -> word.
    """
    token = _unknown_token(tokenizer)
    if token is None or token not in encoding.ids:
        return {}
    marks = zip(encoding.ids, encoding.word_ids, encoding.special_tokens_mask, strict=True)
    unknown = {word for i, word, special in marks if i == token and word is not None and not special}
    spans = {word: encoding.word_to_chars(word) for word in sorted(unknown)}
    return {word: caption[span[0] : span[1]] for word, span in spans.items() if span is not None}


def words_of(encoding: Encoding, caption: str) -> list[tuple[str, list[int]]]:
    """List the words of an encoded caption, each with the ids of its tokens."""
    tokens: dict[int, list[int]] = {}
    for i, word in zip(encoding.ids, encoding.word_ids, strict=True):
        if word is not None:
            tokens.setdefault(word, []).append(i)
    spans = {word: encoding.word_to_chars(word) for word in tokens}
    return [(caption[slice(*span)], tokens[word]) for word, span in spans.items() if span is not None]


@lru_cache(maxsize=TOKENIZERS)
def _unknown_token(tokenizer: Tokenizer) -> int | None:
    """Return the id of the token for unknown text; None if the vocabulary covers all text."""
    model = json.loads(tokenizer.to_str())["model"]  # no attribute holds that of a Unigram model
    name = model.get("unk_token")
    return model.get("unk_id") if name is None else tokenizer.token_to_id(name)


@lru_cache(maxsize=TOKENIZERS)
def _named_by(tokenizer: Tokenizer) -> set[str]:
    """Return the texts that warnings about this tokenizer have reported; the models of both stages share a tokenizer."""
    return set()


def warn_unknown(tokenizer: Tokenizer, words: Iterable[str], effect: str) -> None:
    """Warn about unknown words that have not been reported before.

    Args:
        tokenizer: The tokenizer.
        words: Unknown words.
        effect: The consequence, which the warning states.
    """
    if new := _unnamed(tokenizer, words):
        shown = ", ".join(_printable(word) for word in new[:SHOWN])
        more = f" and {len(new) - SHOWN} more" * (len(new) > SHOWN)
        log.warning("the run's tokenizer has no tokens for %s%s: %s", shown, more, effect)


def warn_cut(tokenizer: Tokenizer, limit: int, rest: str) -> None:
    """Warn about a truncated caption that has not been reported before.

    Args:
        tokenizer: The tokenizer.
        limit: text.max_tokens.
        rest: The part of the caption that is cut off, in full.
    """
    if _unnamed(tokenizer, [rest]):
        log.warning("caption over text.max_tokens=%d: cut before %r", limit, rest[:40])


def _unnamed(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Return the texts that have not been reported yet. After `NAMED` texts, log once that no more are reported."""
    named = _named_by(tokenizer)
    new = [text for text in dict.fromkeys(texts) if text not in named]
    if new and len(named) >= NAMED:
        if LAST not in named:
            log.warning(LAST)
            named.add(LAST)
        return []
    named.update(new)
    return new


def _printable(word: str) -> str:
    """Shorten a word to 40 characters and replace those that control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in word[:40]) + "..." * (len(word) > 40)
