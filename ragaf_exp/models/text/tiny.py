"""The text encoder that is trained from scratch (config group `text`), and its tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from tokenizers import Encoding, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.files import parse_json
from ragaf_exp.core.safe_files import read_bounded
from ragaf_exp.core.tensors import brief
from ragaf_exp.data.lengths import LONGEST
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import fingerprint
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.models.text.vocabulary import fitting, unknown_words, warn_cut, warn_unknown, words_of

PAD, START, UNKNOWN = "[PAD]", "[START]", "[UNK]"
UNENDING = re.compile(r"\)[*+{?]|\\[1-9kg]")  # a repeated group or a back reference: no known tokenizer has either


def train_tokenizer(captions: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-pair encoding of lower-case words on the captions."""
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, START, UNKNOWN], show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(fitting(captions), trainer)
    return tokenizer


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer from an untrusted file, without its padding and truncation.

    Raises:
        ValueError: The file is damaged or has a pattern that may not terminate.
    """
    text = read_bounded(path).decode()
    if unending := next((pattern for pattern in _patterns(parse_json(text)) if UNENDING.search(pattern)), None):
        raise ValueError(f"its pattern {unending[:40]!r} may never terminate")
    with panics():
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_padding()  # otherwise a file could pad each caption to 10^9 tokens
        tokenizer.no_truncation()
    if max(tokenizer.get_vocab().values(), default=-1) >= tokenizer.get_vocab_size():
        raise ValueError("its token numbers are not 0, 1, 2, ...")
    encoded(tokenizer, "a red circle, left of 2 blue stars")
    return tokenizer


def _patterns(content: Any) -> Iterator[str]:
    """Yield the regular expressions in a tokenizer's JSON."""
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for value in inner:
        yield from _patterns(value)
    if isinstance(content, dict) and "Regex" in content:
        yield str(content["Regex"])


def encoded(tokenizer: Tokenizer, caption: str) -> Encoding:
    """Encode a caption.

    Raises:
        UserError: The tokenizer, whose file is untrusted, fails on it.
    """
    try:
        with panics():
            return tokenizer.encode(caption)
    except ValueError as error:
        raise UserError(f"tokenizer.json: can't encode {caption[:40]!r} ({error}); restore it or train again") from error


@contextmanager
def panics() -> Iterator[None]:
    """Convert errors of the tokenizers library to ValueError: a bare Exception, or a Rust panic, a BaseException."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ValueError(brief(error)) from None
        raise


class TinyText(TextEncoder):
    """A small transformer encoder over byte-pair tokens, trained jointly with the denoiser.

    Words with characters that the tokenizer does not know are left out, with a warning.

    Args:
        tokenizer: Tokenizer, trained on the data or read from the run folder.
        width: D, channels of a token.
        layers: Number of encoder layers.
        heads: Number of attention heads.
        max_tokens: Longer captions are truncated to this number of tokens, with a warning.
        vocabulary: Maximum number of tokens in the vocabulary.

    Raises:
        UserError: The settings are inconsistent.
    """

    def __init__(
        self, tokenizer: Tokenizer, width: limits.Width = 128, layers: limits.Layers = 2, heads: limits.Heads = 4,
        max_tokens: limits.Tokens = 64, vocabulary: limits.Vocabulary = 2048,
    ):  # fmt: skip
        super().__init__()
        at_least("text", 1, width=width, layers=layers, heads=heads)
        at_least("text", 2, max_tokens=max_tokens)
        if width % heads:
            raise UserError(f"text.width={width}: must be a multiple of text.heads={heads}")
        self.tokenizer, self.width, self.max_tokens = tokenizer, width, max_tokens
        self.vocabulary = vocabulary
        self._ids_of: dict[str, list[int]] = {}  # captions repeat every epoch
        self._known_parts: dict[str, tuple[str, list[str]]] = {}
        self.token = nn.Embedding(tokenizer.get_vocab_size(), width)
        self.position = nn.Parameter(torch.randn(max_tokens, width) * 0.02)
        # neighbouring words describe one object ("a striped blue star"): a convolution binds them from the first step
        self.neighbours = nn.Conv1d(width, width, 5, padding=2)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    trained = True  # from scratch, with the denoiser
    token_table = "token.weight"

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines the tokens of a caption."""
        return fingerprint(self, type(self).__name__, self.tokenizer.to_str())

    @staticmethod
    def tokenizer_for(settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """Train the tokenizer of a new run on its captions."""
        return TinyText.fit(captions(), settings.vocabulary)

    @staticmethod
    def fit(captions: Iterable[str], vocabulary: int = 2048) -> Tokenizer:
        """Train a tokenizer of at most `vocabulary` tokens on these captions."""
        at_least("text", 4, vocabulary=vocabulary)
        return train_tokenizer(captions, vocabulary)

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Load the tokenizer of a run folder.

        Raises:
            ValueError: The file is damaged.
        """
        tokenizer = read_tokenizer(path)
        for token in (PAD, START, UNKNOWN):
            if tokenizer.token_to_id(token) is None:
                raise ValueError(f"it has no token {token}")
        return tokenizer

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids (B,T) and mask (B,T). Token 0 is START, so that an empty caption has one token."""
        ids = [self._cached_ids(caption) for caption in captions]
        length = max(map(len, ids))
        pad = self.tokenizer.token_to_id(PAD)
        padded = torch.tensor([row + [pad] * (length - len(row)) for row in ids])
        mask = torch.tensor([[i < len(row) for i in range(length)] for row in ids])
        return padded, mask

    def token_spans(self, caption: str) -> list[tuple[int, int]]:
        """Return the range of characters [start, end) of each token, in order; (0,0) for START."""
        return [(0, 0), *(span for _, span in self._known(caption)[0])][: self.max_tokens]

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words of the caption that the tokenizer does not know, which are left out."""
        return self._known(caption)[1]

    def words(self) -> list[str]:
        """Return the words that the training captions contain, as far as the tokenizer shows them.

        A token that is part of a longer one may be a fragment, and is left out; so is a word that others begin with.
        """
        model = json.loads(self.tokenizer.to_str())["model"]
        pairs = (pair if isinstance(pair, list) else pair.split(" ") for pair in model.get("merges", ()))
        parts = {part for pair in pairs for part in pair}
        return sorted(token for token in model["vocab"] if token.isalpha() and len(token) > 1 and token not in parts)

    def known_part(self, prompt: str) -> tuple[str, list[str]]:
        """Split a region's prompt into the words that the training captions contain, and the others, which are left out.

        In a caption the context outweighs an unknown word, but a prompt of a few words has no context.
        """
        if prompt not in self._known_parts:
            words = words_of(encoded(self.tokenizer, prompt[:LONGEST]), prompt)
            unknown = list(dict.fromkeys(word for word, tokens in words if not self._holds(tokens)))
            known = " ".join(word for word, tokens in words if self._holds(tokens))
            self._known_parts[prompt] = known, unknown
        return self._known_parts[prompt]

    def _holds(self, tokens: list[int]) -> bool:
        """Return whether the training captions contain the word of these tokens.

        Training the tokenizer merges every word that occurs twice into a single token, unless the vocabulary fills up
        first. If it did, a word of several tokens may be rare in the captions. A token that is a fragment of a word, such
        as "it" in "white", counts as contained.
        """
        if self.tokenizer.token_to_id(UNKNOWN) in tokens:
            return False
        return len(tokens) == 1 or self.tokenizer.get_vocab_size() >= self.vocabulary

    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """Encode B captions as tokens (B,T,D). keep (B,) bool: False drops the caption (all tokens but START)."""
        device = self.position.device
        ids, mask = (x.to(device, non_blocking=True) for x in self.tokenize(captions))  # (B,T) both
        if keep is not None:
            first = torch.arange(mask.shape[1], device=device) == 0  # (T,)
            mask = mask & (keep[:, None] | first)
        x = self.token(ids) * mask[..., None]  # (B,T,D)
        x = x + F.gelu(self.neighbours(x.transpose(1, 2)).transpose(1, 2)) + self.position[: ids.shape[1]]
        return Text(self.encoder(x, src_key_padding_mask=~mask), mask)

    def _cached_ids(self, caption: str) -> list[int]:
        if caption not in self._ids_of:
            self._ids_of[caption] = self._ids(caption)
        return self._ids_of[caption]

    def _ids(self, caption: str) -> list[int]:
        known, unknown = self._known(caption)
        if unknown:
            effect = "left out" if known else "left out, and nothing remains of the caption"
            warn_unknown(self.tokenizer, unknown, effect)
        limit = self.max_tokens - 1
        if len(known) > limit:
            warn_cut(self.tokenizer, self.max_tokens, caption[known[limit][1][0] :])
        start = self.tokenizer.token_to_id(START)
        assert start is not None, "fit adds it, and load checks it"
        return [start, *(i for i, _ in known[:limit])]

    def _known(self, caption: str) -> tuple[list[tuple[int, tuple[int, int]]], list[str]]:
        """Return (id, range of characters [start, end)) of each token of the known words, and the unknown words."""
        encoding = encoded(self.tokenizer, caption[:LONGEST])
        unknown = unknown_words(self.tokenizer, encoding, caption)
        rows = zip(encoding.ids, encoding.offsets, encoding.word_ids, strict=True)
        return [(i, span) for i, span, word in rows if word not in unknown], list(dict.fromkeys(unknown.values()))
