"""CLIP's own tokenizer, from the vocabulary that open_clip ships: single-file checkpoints hold no tokenizer."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers
from transformers import CLIPTokenizer

from ragaf_exp.core.errors import UserError

FILE = "bpe_simple_vocab_16e6.txt.gz"
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49152 - 256 - 2  # lines of the file that CLIP uses, after its header


def clip_tokenizer() -> Tokenizer:
    """Return the tokenizer of Stable Diffusion 1.x. Raises UserError if open_clip is not installed."""
    package = find_spec("open_clip")
    path = None if package is None or package.origin is None else Path(package.origin).parent / FILE
    if path is None or not path.is_file():
        raise UserError("text.source: a single file holds no tokenizer; pip install open-clip-torch, which ships CLIP's, "
                        "or set text.source to a folder")  # fmt: skip
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    merges = [(first, second) for first, second in (line.split() for line in lines)]
    special: dict[str, Any] = {"unk_token": END, "bos_token": START, "eos_token": END, "pad_token": END}
    return CLIPTokenizer(vocab=_vocabulary(merges), merges=merges, **special).backend_tokenizer


def _vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Number the tokens as CLIP does: bytes, bytes at a word's end, merges, and the two special tokens."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    letters = sorted(alphabet, key=lambda letter: (ord(letter) >= 256, ord(letter)))  # printable bytes come first
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), START, END]
    return {token: number for number, token in enumerate(tokens)}
