"""Text encoding by the `encode_prompt` of a transformer family's pipeline. Subclasses describe the family."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from omegaconf import DictConfig
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoTokenizer

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.hashing import json_digest
from ragaf_exp.core.tensors import brief
from ragaf_exp.data.lengths import LONGEST
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, checksum_of, fetch, load, read_config, weight_files
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.models.text.clip import TOKENIZER_FILES
from ragaf_exp.models.text.tiny import encoded, read_tokenizer
from ragaf_exp.models.text.vocabulary import unknown_words

DESCRIBING = (".json", ".txt", ".model", ".jinja")  # suffixes of configs, vocabularies and templates
CAPTIONS = 128  # encoded captions that are held in memory, of up to 8 MB each
Span = tuple[int, int]
Encoded = tuple[Tensor, Tensor | None]  # tokens (T,D), and the pooled vector (P,) if there is one
Held = TypeVar("Held")


@dataclass(frozen=True)
class Part:
    """A text encoder of a family."""

    folder: str  # subfolder of the source
    kind: Any  # class of transformers
    tokenizer: str  # subfolder of its tokenizer


@dataclass(frozen=True)
class Segment:
    """Consecutive tokens of a family's text, from one tokenizer. The tokenizer reads before + caption + after."""

    tokenizer: str  # subfolder of the source; "": zeros without a tokenizer
    length: int  # number of tokens, padding included
    before: str = ""
    after: str = ""
    dropped: int = 0  # number of first tokens that the pipeline cuts off


@dataclass
class Encoders:
    """The frozen encoders of a source, loaded when a caption is first encoded. All models of a process share them.

    Args:
        origin: The source.
        parts: Its text encoders.
        pipeline: Builds the family's pipeline from the source and its encoders and tokenizers by name.
    """

    origin: Origin
    parts: tuple[Part, ...]
    pipeline: Callable[[Origin, dict[str, Any]], Any]
    tokenizers: dict[str, Any] = field(default_factory=dict)
    texts: dict[tuple[Any, ...], Any] = field(default_factory=dict)  # encodings by what was read, the newest ones
    loaded: Any = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Encoders:
        return self

    def tokenizer(self, folder: str) -> Any:
        """Return the tokenizer in a subfolder of the source.

        Raises:
            UserError: There is none.
        """
        if folder not in self.tokenizers:
            root = fetch(self.origin, [f"{folder}/{name}" for name in TOKENIZER_FILES]) / folder
            try:
                self.tokenizers[folder] = AutoTokenizer.from_pretrained(
                    root, local_files_only=True, use_fast=True, trust_remote_code=False
                )
            except Exception as error:  # the loaders raise errors of many types
                raise UserError(f"{self.origin.key}: no tokenizer in {root} ({brief(error)}); fetch the whole folder "
                                "again") from error  # fmt: skip
        return self.tokenizers[folder]

    def whole(self) -> Any:
        """Return the pipeline with its encoders, without transformer and autoencoder."""
        if self.loaded is None:
            named: dict[str, Any] = {part.folder: load(part.kind, self.origin, part.folder)[0] for part in self.parts}
            named = {name: net.requires_grad_(False).eval() for name, net in named.items()}
            named |= {part.tokenizer: self.tokenizer(part.tokenizer) for part in self.parts}
            self.loaded = self.pipeline(self.origin, named)
        return self.loaded

    def to(self, device: torch.device) -> None:
        for part in self.parts:
            getattr(self.whole(), part.folder).to(device)

    @property
    def device(self) -> torch.device:
        return getattr(self.whole(), self.parts[0].folder).device

    def checksum(self) -> str:
        """sha256 of the encoders' weight files."""
        return json_digest([checksum_of(self.origin, part.folder) for part in self.parts])

    def encoded(self, key: tuple[Any, ...], encode: Callable[[], Held], most: int = CAPTIONS) -> Held:
        """Return an encoding, from memory if it is there.

        Args:
            key: The caption, and all else that decides its encoding.
            encode: Computes the encoding.
            most: Number of encodings that are held in memory.

        Returns:
            The encoding.
        """
        if key not in self.texts:
            while len(self.texts) >= most:
                del self.texts[next(iter(self.texts))]
            self.texts[key] = encode()
        return self.texts[key]


shared_encoders = lru_cache(1)(Encoders)  # a run builds its text encoder once per stage


class PipelineText(TextEncoder):
    """Text of a transformer family, as its own pipeline encodes it, by frozen encoders.

    The encoders are no part of the model: they stay in main memory, and only fill the feature cache on the device, so that
    they never share it with the transformer. They compute in float32.

    Args:
        tokenizer: Tokenizer of the run folder (wiring).
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained; none plans without a source, and encodes nothing.
        max_tokens: Number of tokens of the longest segment, padding included; longer captions are truncated.

    Raises:
        UserError: The source is missing or damaged, or lacks an encoder.
    """

    home: Tensor
    trained = False
    leading = 0
    main: ClassVar[str]  # subfolder of the tokenizer that a run folder records

    def __init__(
        self, tokenizer: Tokenizer, source: str = "", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, max_tokens: limits.Tokens = 512,
    ):  # fmt: skip
        super().__init__()
        at_least("text", 3, max_tokens=max_tokens)
        self.origin = Origin("text", source, revision, offline, variant, weights)
        self.tokenizer, self.max_tokens = tokenizer, max_tokens
        self.register_buffer("home", torch.empty(0), persistent=False)  # on the device of the model
        self.encoders = shared_encoders(self.origin, self.parts(), self.pipeline)
        self.check()
        self.width, self.pooled_width = self.widths()

    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """Return the encoders that the source must have."""

    @abstractmethod
    def segments(self) -> tuple[Segment, ...]:
        """Return the layout of the tokens."""

    @abstractmethod
    def widths(self) -> tuple[int, int]:
        """Return D, channels of a token, and P, channels of the pooled vector, 0 = none."""

    @staticmethod
    @abstractmethod
    def pipeline(origin: Origin, named: dict[str, Any]) -> Any:
        """Build the family's pipeline from the source and its encoders and tokenizers by name."""

    @abstractmethod
    def encode(self, pipeline: Any, caption: str, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Encode a caption by the pipeline's encode_prompt.

        Args:
            pipeline: Result of `pipeline`.
            caption: The caption.
            device: Device of the encoders.

        Returns:
            Tokens (1,T',D), at most as many as the segments have, and the pooled vector (1,P), or None.
        """

    def attended(self, mask: Tensor) -> Tensor | None:
        """Return (B,T) bool: what the denoiser attends to if that is not `mask` (B,T). Here all tokens and the padding."""
        return torch.ones_like(mask)

    def part_config(self, folder: str) -> dict[str, Any]:
        """Return the config of an encoder; {} without a source."""
        return read_config(self.origin, folder) if self.origin.source else {}

    def folders(self) -> list[str]:
        """Return the subfolders of the source that are read."""
        return [folder for part in self.parts() for folder in (part.folder, part.tokenizer)]

    def files(self) -> list[Path]:
        """Return the source's files of encoders and tokenizers, as they lie in `folders`.

        Raises:
            UserError: The source is missing or incomplete, or its weights are pickled.
        """
        names, encoders = self.folders(), {part.folder for part in self.parts()}
        root = fetch(self.origin, [f"{name}/*" for name in names])
        files: list[Path] = []
        for name in names:
            weights = weight_files(root / name, self.origin) if name in encoders else []
            if pickled := [path for path in weights if path.suffix != ".safetensors"]:
                raise UserError(f"{pickled[0]}: is pickled; save it as safetensors, or leave the weights out")
            described = [path for path in sorted((root / name).iterdir()) if path.suffix in DESCRIBING and path.is_file()]
            files += [*weights, *described]
        return files

    def check(self) -> None:
        """Raise UserError if the source lacks an encoder."""
        if not self.origin.source and self.origin.weights == PRETRAINED:
            fetch(self.origin, [])
        for part in self.parts() if self.origin.source else ():
            read_config(self.origin, part.folder)
            if (root := Path(self.origin.source).expanduser()).is_dir() and self.origin.weights == PRETRAINED:
                weight_files(root / part.folder, self.origin)

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines the tokens of a caption."""
        layout = [repr(segment) for segment in self.segments()]
        return json_digest([type(self).__name__, layout, self.encoders.checksum(), self.tokenizer.to_str()], 64)

    @classmethod
    def tokenizer_for(cls, settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """Return the source's tokenizer in the single-file format of run folders."""
        s = settings
        origin = Origin("text", s.source, s.revision, s.offline, s.variant, s.weights)
        return Encoders(origin, (), lambda *_: None).tokenizer(cls.main).backend_tokenizer

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Load the tokenizer of a run folder.

        Raises:
            ValueError: The file is damaged.
        """
        return read_tokenizer(path)

    def token_spans(self, caption: str) -> list[Span]:
        """Return the range of characters [start, end) of each token; (0,0) for padding and tokens of the template."""
        rows = [(self._spans(segment, caption), segment.length) for segment in self.segments()]
        return [span for spans, length in rows for span in spans + [(0, 0)] * (length - len(spans))]

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids (B,T) and mask (B,T), False at padding."""
        ids, masks = [], []
        for caption in captions:
            rows = [(self._ids(segment, caption), segment.length) for segment in self.segments()]
            ids.append([i for row, length in rows for i in row + [0] * (length - len(row))])
            masks.append([at < len(row) for row, length in rows for at in range(length)])
        return torch.tensor(ids, device="cpu"), torch.tensor(masks, device="cpu")

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words that the recorded tokenizer does not know."""
        unknown = unknown_words(self.tokenizer, encoded(self.tokenizer, caption[:LONGEST]), caption)
        return list(dict.fromkeys(unknown.values()))

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """Encode on this device while this is open, and return the encoders to main memory."""
        self.encoders.to(device)
        yield
        self.encoders.to(torch.device("cpu"))

    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """Encode B captions as tokens (B,T,D). keep (B,) bool: False drops the caption, which leaves the empty one."""
        if self.home.is_meta:
            return self._planned(len(captions))
        if keep is not None:
            captions = [caption if has else "" for caption, has in zip(captions, keep.tolist(), strict=True)]
        length = sum(segment.length for segment in self.segments())
        rows = [self.encoders.encoded((caption, length), partial(self._encode, caption)) for caption in captions]
        pooled = [x for _, x in rows if x is not None]
        mask = self.tokenize(captions)[1]
        text = Text(torch.stack([x for x, _ in rows]), mask, self.attended(mask), torch.stack(pooled) if pooled else None)
        return text.each(lambda x: x.to(self.home.device))

    def _encode(self, caption: str) -> Encoded:
        """Encode a caption as tokens (T,D), padded with zeros, and pooled vector (P,), in main memory."""
        if not self.origin.source:
            raise UserError("text.source=: without one, a run can only be planned; set backbone.source to a folder in "
                            "diffusers' layout or a hub id")  # fmt: skip
        device = self.encoders.device
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            tokens, pooled = self.encode(self.encoders.whole(), caption[:LONGEST], device)
        padded = torch.zeros(sum(s.length for s in self.segments()), tokens.shape[-1])
        padded[: tokens.shape[1]] = tokens[0].float().cpu()
        return padded, None if pooled is None else pooled[0].float().cpu()

    def _planned(self, count: int) -> Text:
        """Return text of the largest size on the meta device."""
        length = sum(segment.length for segment in self.segments())
        mask = torch.ones(count, length, dtype=torch.bool, device="meta")
        pooled = torch.zeros(count, self.pooled_width, device="meta") if self.pooled_width else None
        return Text(torch.zeros(count, length, self.width, device="meta"), mask, self.attended(mask), pooled)

    def _ids(self, segment: Segment, caption: str) -> list[int]:
        return self._read(segment, caption)["input_ids"][segment.dropped :] if segment.tokenizer else []

    def _read(self, segment: Segment, caption: str) -> Any:
        text = segment.before + caption[:LONGEST] + segment.after
        return self.encoders.tokenizer(segment.tokenizer)(
            text, truncation=True, max_length=segment.length + segment.dropped, return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )  # fmt: skip

    def _spans(self, segment: Segment, caption: str) -> list[Span]:
        """Return the characters of the caption that each token of a segment covers, without spaces in front."""
        if not segment.tokenizer:
            return []
        read, skip, end = self._read(segment, caption), len(segment.before), len(caption[:LONGEST])
        spans = []
        for (low, high), special in zip(read["offset_mapping"], read["special_tokens_mask"], strict=True):
            low, high = max(low - skip, 0), min(high - skip, end)
            while low < high and caption[low].isspace():
                low += 1
            spans.append((low, high) if high > low and not special else (0, 0))
        return spans[segment.dropped :]
