"""Trained text encoders (config group `text`): CLIP's, as Stable Diffusion has them, and T5's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModel, T5EncoderModel

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.tensors import brief
from ragaf_exp.data.lengths import LONGEST
from ragaf_exp.models.conditioning import Text
from ragaf_exp.models.loading.hub import PRETRAINED, Origin, fetch, fingerprint, network, read_config
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.models.text.tiny import encoded, read_tokenizer
from ragaf_exp.models.text.vocabulary import unknown_words, warn_cut, warn_unknown

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
SD15_TEXT = {
    "model_type": "clip_text_model", "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072,
    "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}  # fmt: skip
KINDS = {"clip_text_model": CLIPTextModel, "clip": CLIPTextModel, "t5": T5EncoderModel}
TOKENIZER_FILES = ["*.json", "*.txt", "*.model"]


class ClipText(TextEncoder):
    """A text encoder of transformers; frozen unless `train`.

    Stable Diffusion was trained with captions padded to 77 tokens that its UNet all attends to, so that is what the
    denoiser sees here; regions read only the caption's own tokens. A dropped caption is the empty one.

    tokenizer: of the run folder. source: a folder or hub id; subfolder, tokenizer_subfolder: within it ("" = the folder
    itself, as for openai/clip-vit-large-patch14). revision, offline, variant, weights: as in the group `backbone`.
    max_tokens: captions are padded to so many, and cut with a warning.
    """

    net: Any  # of transformers

    def __init__(
        self, tokenizer: Tokenizer, source: str = "", revision: str = "", offline: bool = False, variant: str = "",
        weights: str = PRETRAINED, subfolder: str = "text_encoder", tokenizer_subfolder: str = "tokenizer",
        train: bool = False, max_tokens: limits.Tokens = 77,
    ):  # fmt: skip
        super().__init__()
        at_least("text", 3, max_tokens=max_tokens)
        origin = Origin("text", source, revision, offline, variant, weights)
        kind = _kind(origin, subfolder)
        self.net, self.source = network(kind, origin, subfolder, SD15_TEXT)
        config = self.net.config
        self.padding_is_seen = kind is CLIPTextModel
        longest = getattr(config, "max_position_embeddings", max_tokens)
        if max_tokens > longest:
            raise UserError(f"text.max_tokens={max_tokens}: this encoder reads at most {longest}")
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise UserError(f"{origin.key}: its tokenizer knows {tokenizer.get_vocab_size()} tokens, and its encoder "
                            f"{config.vocab_size}; take both from the same model")  # fmt: skip
        self.tokenizer, self.width, self.max_tokens, self.trained = tokenizer, config.hidden_size, max_tokens, train
        if not train:
            self.requires_grad_(False)
            self.eval()

    @property
    def fingerprint(self) -> str:
        """sha256 of all that decides the tokens of a caption."""
        return fingerprint(self.net, type(self).__name__, self.max_tokens, self.tokenizer.to_str())

    def train(self, mode: bool = True) -> ClipText:
        """A frozen encoder has no dropout."""
        return super().train(mode and self.trained)

    @staticmethod
    def tokenizer_for(settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """The source's own tokenizer, as one file that the run folder keeps."""
        s = settings
        origin = Origin("text", s.source, s.revision, s.offline, s.variant, s.weights)
        place = s.tokenizer_subfolder
        if not s.source and s.weights != PRETRAINED:
            return _stand_in()
        folder = fetch(origin, [f"{place}/{name}" if place else name for name in TOKENIZER_FILES]) / place
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True,
                                                 trust_remote_code=False).backend_tokenizer  # fmt: skip
        except Exception as error:  # of many types
            raise UserError(f"{origin.key}: no tokenizer in {folder} ({brief(error)}); text.tokenizer_subfolder says "
                            "where it is") from error  # fmt: skip

    @staticmethod
    def load(path: Path) -> Tokenizer:
        return read_tokenizer(path)

    def token_spans(self, caption: str) -> list[tuple[int, int]]:
        """[start, end) characters of each token; those that open and close the caption are (0,0)."""
        encoding = encoded(self.tokenizer, caption[:LONGEST])
        spans = [(0, 0) if special else span for span, special in
                 zip(encoding.offsets, encoding.special_tokens_mask, strict=True)]  # fmt: skip
        return spans if len(spans) <= self.max_tokens else [*spans[: self.max_tokens - 1], (0, 0)]

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Token ids (B,T) padded to max_tokens, and mask (B,T), False at padding."""
        rows = [self._ids(caption) for caption in captions]
        pad = self._pad()
        ids = torch.tensor([row + [pad] * (self.max_tokens - len(row)) for row in rows], device="cpu")
        return ids, torch.tensor([[i < len(row) for i in range(self.max_tokens)] for row in rows], device="cpu")

    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """captions: B strings. keep (B,) bool: False drops the caption."""
        device = self.net.device
        if keep is not None:
            captions = [caption if kept else "" for caption, kept in zip(captions, keep.tolist(), strict=True)]
        ids, mask = (x.to(device) for x in self.tokenize(captions))
        # frozen, it computes in float32 whatever the run's precision: its tokens are those of a cache
        still = torch.autocast(device.type, enabled=False) if not self.trained else nullcontext()
        with still, nullcontext() if self.trained else torch.no_grad():
            attended = None if self.padding_is_seen else mask.long()
            tokens = self.net(input_ids=ids, attention_mask=attended).last_hidden_state
        return Text(tokens, mask, torch.ones_like(mask) if self.padding_is_seen else mask)

    def _pad(self) -> int:
        named = [self.tokenizer.token_to_id(name) for name in (CLIP_END, "<pad>")]
        given = getattr(self.net.config, "pad_token_id", None)
        known = [i for i in (named if self.padding_is_seen else [given, *named]) if i is not None]
        return known[0] if known else 0

    def unknown_words(self, caption: str) -> list[str]:
        """Words of the caption that the tokenizer does not know; the encoder reads its token for unknown text instead."""
        found = unknown_words(self.tokenizer, encoded(self.tokenizer, caption[:LONGEST]), caption)
        return list(dict.fromkeys(found.values()))

    def _ids(self, caption: str) -> list[int]:
        encoding = encoded(self.tokenizer, caption[:LONGEST])
        if unknown := unknown_words(self.tokenizer, encoding, caption):
            warn_unknown(self.tokenizer, unknown.values(), "the encoder reads its token for unknown text instead")
        if len(encoding.ids) <= self.max_tokens:
            return encoding.ids
        warn_cut(self.tokenizer, self.max_tokens, caption[encoding.offsets[self.max_tokens - 1][0] :])
        return [*encoding.ids[: self.max_tokens - 1], encoding.ids[-1]]


def _kind(origin: Origin, subfolder: str) -> Any:
    if not origin.source and origin.weights != PRETRAINED:
        return CLIPTextModel
    found = read_config(origin, subfolder).get("model_type")
    if found not in KINDS:
        raise UserError(f"{origin.key}: its config.json says model_type={found}; known are {', '.join(KINDS)}")
    return KINDS[found]


def _stand_in() -> Tokenizer:
    """CLIP's layout without merges: a token per letter, for encoders with random weights."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = [*letters, *(f"{letter}</w>" for letter in letters), CLIP_START, CLIP_END]
    vocabulary = {token: i for i, token in enumerate(known)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], end_of_word_suffix="</w>", unk_token=CLIP_END))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    start, end = ((token, vocabulary[token]) for token in (CLIP_START, CLIP_END))
    tokenizer.post_processor = processors.RobertaProcessing(end, start, trim_offsets=False, add_prefix_space=False)
    return tokenizer
