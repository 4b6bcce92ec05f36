"""Pretrained text encoders (config group `text`): CLIP's, as used by Stable Diffusion, and T5's."""

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
from ragaf_exp.models.loading.single_file import is_single_file
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.models.text.clip_vocabulary import clip_tokenizer
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
    """A text encoder of transformers, frozen unless `train` is set.

    Stable Diffusion was trained with captions padded to 77 tokens, and its UNet attends to all of them. The denoiser does
    the same here, while regions attend to the caption's own tokens only. A dropped caption becomes the empty caption.

    Args:
        tokenizer: Tokenizer of the run folder.
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights. Without a source, none uses Stable Diffusion 1.5's config.
        subfolder: Subfolder of the encoder; "" = the source itself, as for openai/clip-vit-large-patch14.
        tokenizer_subfolder: Subfolder of the tokenizer; "" = the source itself.
        train: Whether the encoder is trained with the denoiser.
        max_tokens: Captions are padded to this number of tokens; longer ones are truncated with a warning.

    Raises:
        UserError: The source is missing or damaged, or the settings do not fit it.
    """

    net: Any  # an encoder of transformers

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
        self.attends_padding = kind is CLIPTextModel
        longest = getattr(config, "max_position_embeddings", max_tokens)
        if max_tokens > longest:
            raise UserError(f"text.max_tokens={max_tokens}: this encoder reads at most {longest}; set text.max_tokens to "
                            "that or less")  # fmt: skip
        if tokenizer.get_vocab_size() > config.vocab_size:
            raise UserError(f"{origin.key}: its tokenizer knows {tokenizer.get_vocab_size()} tokens, but its encoder only "
                            f"{config.vocab_size}; take both from the same model")  # fmt: skip
        self.tokenizer, self.width, self.max_tokens, self.trained = tokenizer, config.hidden_size, max_tokens, train
        if not train:
            self.requires_grad_(False)
            self.eval()

    @property
    def fingerprint(self) -> str:
        """sha256 of everything that determines the tokens of a caption."""
        return fingerprint(self.net, type(self).__name__, self.max_tokens, self.tokenizer.to_str())

    def train(self, mode: bool = True) -> ClipText:
        """Set the training mode; a frozen encoder stays in evaluation mode, without dropout."""
        return super().train(mode and self.trained)

    @staticmethod
    def tokenizer_for(settings: DictConfig, captions: Callable[[], list[str]]) -> Tokenizer:
        """Return the source's tokenizer in the single-file format of run folders.

        Raises:
            UserError: The source has no tokenizer.
        """
        s = settings
        origin = Origin("text", s.source, s.revision, s.offline, s.variant, s.weights)
        inner = s.tokenizer_subfolder
        if is_single_file(s.source):
            return clip_tokenizer()
        if not s.source and s.weights != PRETRAINED:
            return _stand_in()
        folder = fetch(origin, [f"{inner}/{name}" if inner else name for name in TOKENIZER_FILES]) / inner
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True,
                                                 trust_remote_code=False).backend_tokenizer  # fmt: skip
        except Exception as error:  # the loaders raise errors of many types
            raise UserError(f"{origin.key}: no tokenizer in {folder} ({brief(error)}); set text.tokenizer_subfolder to its "
                            "folder") from error  # fmt: skip

    @staticmethod
    def load(path: Path) -> Tokenizer:
        """Load the tokenizer of a run folder.

        Raises:
            ValueError: The file is damaged.
        """
        return read_tokenizer(path)

    def token_spans(self, caption: str) -> list[tuple[int, int]]:
        """Return the range of characters [start, end) of each token; (0,0) for the start and end tokens."""
        encoding = encoded(self.tokenizer, caption[:LONGEST])
        spans = [(0, 0) if special else span for span, special in
                 zip(encoding.offsets, encoding.special_tokens_mask, strict=True)]  # fmt: skip
        return spans if len(spans) <= self.max_tokens else [*spans[: self.max_tokens - 1], (0, 0)]

    def tokenize(self, captions: list[str]) -> tuple[Tensor, Tensor]:
        """Return token ids (B,T) padded to max_tokens, and mask (B,T), False at padding."""
        rows = [self._ids(caption) for caption in captions]
        pad = self._pad()
        ids = torch.tensor([row + [pad] * (self.max_tokens - len(row)) for row in rows], device="cpu")
        return ids, torch.tensor([[i < len(row) for i in range(self.max_tokens)] for row in rows], device="cpu")

    def forward(self, captions: list[str], keep: Tensor | None = None) -> Text:
        """Encode B captions as tokens (B,T,D). keep (B,) bool: False drops the caption."""
        device = self.net.device
        if keep is not None:
            captions = [caption if has else "" for caption, has in zip(captions, keep.tolist(), strict=True)]
        ids, mask = (x.to(device) for x in self.tokenize(captions))  # (B,T) both
        # a frozen encoder computes in float32 at any precision of the run, so that its tokens equal those of a cache
        precision = torch.autocast(device.type, enabled=False) if not self.trained else nullcontext()
        with precision, nullcontext() if self.trained else torch.no_grad():
            attended = None if self.attends_padding else mask.long()
            tokens = self.net(input_ids=ids, attention_mask=attended).last_hidden_state  # (B,T,D)
        return Text(tokens, mask, torch.ones_like(mask) if self.attends_padding else mask)

    def _pad(self) -> int:
        named = [self.tokenizer.token_to_id(name) for name in (CLIP_END, "<pad>")]
        given = getattr(self.net.config, "pad_token_id", None)
        known = [i for i in (named if self.attends_padding else [given, *named]) if i is not None]
        return known[0] if known else 0

    def unknown_words(self, caption: str) -> list[str]:
        """Return the words that the tokenizer does not know. The encoder gets the token for unknown text instead."""
        unknown = unknown_words(self.tokenizer, encoded(self.tokenizer, caption[:LONGEST]), caption)
        return list(dict.fromkeys(unknown.values()))

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
    if is_single_file(origin.source):
        return CLIPTextModel
    model_type = read_config(origin, subfolder).get("model_type")
    if model_type not in KINDS:
        raise UserError(f"{origin.key}: its config.json has model_type={model_type}; known are {', '.join(KINDS)}")
    return KINDS[model_type]


def _stand_in() -> Tokenizer:
    """Return a tokenizer in CLIP's layout without merges, one token per letter, for encoders with random weights."""
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
