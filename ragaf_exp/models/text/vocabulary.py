"""What a tokenizer makes of a caption: words it has no tokens for, and bounds against captions of any length."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from tokenizers import Encoding, Tokenizer

from ragaf_exp.data.lengths import LONGEST

log = logging.getLogger(__name__)
MOST = 2_000_000  # characters that a vocabulary is fitted to: seconds, whatever they are
RUN = re.compile(r"\S{100}")  # fitting takes time quadratic in a word's length
NAMED = 50  # words and cuts that warnings about one tokenizer name
LAST = "captions: further unknown words and cuts are not listed"
SHOWN = 8  # words in one of them
TOKENIZERS = 16  # the most that are remembered; tokenizers' own class allows no weak references in older versions


def fitting(captions: Iterable[str]) -> Iterator[str]:
    """The captions as a vocabulary is fitted to them: none is too long, nor is any word, nor all together."""
    total = 0
    for caption in captions:
        yield RUN.sub(r"\g<0> ", caption[:LONGEST])
        total += len(caption[:LONGEST])
        if total > MOST:
            return


def unknown_words(tokenizer: Tokenizer, encoding: Encoding, caption: str) -> dict[int, str]:
    """Words of an encoded caption, by their index in `encoding.word_ids`, that the tokenizer has no tokens for.

    A word counts as unknown where a single one of its characters is, as é in "café" may be.
    """
    token = _unknown_token(tokenizer)
    if token is None or token not in encoding.ids:
        return {}
    marks = zip(encoding.ids, encoding.word_ids, encoding.special_tokens_mask, strict=True)
    unknown = {word for i, word, special in marks if i == token and word is not None and not special}
    found = {}
    for word in sorted(unknown):
        if (span := encoding.word_to_chars(word)) is not None:
            found[word] = caption[span[0] : span[1]]
    return found


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
    """The id of the token that stands for what the vocabulary lacks; None where it lacks nothing."""
    model = json.loads(tokenizer.to_str())["model"]  # a Unigram's is in no attribute
    name = model.get("unk_token")
    return model.get("unk_id") if name is None else tokenizer.token_to_id(name)


@lru_cache(maxsize=TOKENIZERS)
def _named_by(tokenizer: Tokenizer) -> set[str]:
    """The texts that warnings about this tokenizer have named; both stages' models share a tokenizer."""
    return set()


def warn_unknown(tokenizer: Tokenizer, words: Iterable[str], effect: str) -> None:
    """One warning of words that no earlier one about this tokenizer has named. effect: what becomes of them."""
    if new := _unnamed(tokenizer, words):
        shown = ", ".join(_printable(word) for word in new[:SHOWN])
        more = f" and {len(new) - SHOWN} more" * (len(new) > SHOWN)
        log.warning("the run's tokenizer has no tokens for %s%s: %s", shown, more, effect)


def warn_cut(tokenizer: Tokenizer, limit: int, rest: str) -> None:
    """A warning of a caption that is cut, unless an earlier one named the same. rest: what is left out, in full."""
    if _unnamed(tokenizer, [rest]):
        log.warning("caption over text.max_tokens=%d: cut before %r", limit, rest[:40])


def _unnamed(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Texts that no warning about this tokenizer has named yet; none after `NAMED` of them, which one more line says."""
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
    """At most 40 characters, without those that control a terminal."""
    return "".join(c if c.isprintable() else "?" for c in word[:40]) + "..." * (len(word) > 40)
