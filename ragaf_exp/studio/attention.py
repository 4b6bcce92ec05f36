"""The attention of an image's regions to words, for the page: a table, and maps over the drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import cv2
import numpy as np

from ragaf_exp.core.types import Example
from ragaf_exp.data.uploads import png
from ragaf_exp.inference.recipes.apply import Applied
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.studio.events import Picture
from ragaf_exp.studio.observe import RegionRecord
from ragaf_exp.viz.attention_steps import region_means
from ragaf_exp.viz.panels import by_word

DIGITS = 3
TimedAttention: TypeAlias = tuple[int, np.ndarray]  # timestep, and (T,h,w) attention of pixels to tokens


@dataclass(frozen=True)
class Words:
    """The words that the regions of an image read, and how much each region reads of each."""

    words: list[str]
    owners: list[int | None]  # the region whose prompt has the word; None: a word of the caption
    shares: np.ndarray  # (N,words) in [0,1]


def read_words(example: Example, prompts: Sequence[str], record: RegionRecord, text: TextEncoder) -> Words:
    """Split the regions' attention into words of the caption and of the prompts.

    Args:
        example: The item.
        prompts: The prompt of each region, "" = it reads the caption.
        record: Its regions, as recorded while it was sampled.
        text: The text encoder.
    """
    if record.state is None:
        return Words([], [], np.zeros((example.regions.count, 0), np.float32))
    attention = record.state.region_text[0, : example.regions.count].float().cpu().numpy()  # (N,T+K)
    begin = _tokens(text, example.item.caption)
    words, shares = by_word(example.item.caption, attention[:, :begin], text)
    owners: list[int | None] = [None] * len(words)
    columns = [shares]
    for region, prompt in enumerate(prompts):
        known = text.known_part(prompt)[0] if prompt else ""
        if not known:
            continue
        count = _tokens(text, known) - 1  # a prompt has no start token
        with_start = np.pad(attention[:, begin : begin + count], ((0, 0), (1, 0)))
        more, shares = by_word(known, with_start, text)
        words, owners = words + more, owners + [region] * len(more)
        columns.append(shares)
        begin += count
    return Words(words, owners, np.concatenate(columns, 1))


def _tokens(text: TextEncoder, caption: str) -> int:
    return int(text.tokenize([caption])[1].sum())


def described(
    words: Words, example: Example, frames: Sequence[TimedAttention], text: TextEncoder, applied: Applied
) -> dict[str, Any]:
    """Describe the attention for the page.

    A word of the caption is mapped by the attention of the pixels in the denoiser, a word of a prompt, which the denoiser
    does not read, by that of its region.

    Args:
        words: The words and the regions' attention.
        example: The item.
        frames: The denoiser's attention by timestep; may be empty.
        text: The text encoder.
        applied: The regions of the recipe, by whose labels the page knows them.
    """
    steps = [(t, word_maps(example, attention, text)[1]) for t, attention in frames]
    mean = np.mean([maps for _, maps in steps], axis=0) if steps else None
    maps = [_map(words, example, mean, i) for i in range(len(words.words))]
    peaks = [float(one.max(initial=0.0)) for one in maps]
    regions = example.regions
    means = [(t, region_means(one, regions.labels, regions.count)) for t, one in steps]
    return {
        "words": [{"word": word, "source": "caption" if owner is None else "prompt",
                   "region": None if owner is None else applied.labels[owner]}
                  for word, owner in zip(words.words, words.owners, strict=True)],
        "regions": rounded(applied.by_label(words.shares)),
        "maps": [Picture(_grey(one, peak)) for one, peak in zip(maps, peaks, strict=True)],
        "peaks": [round(peak, DIGITS) for peak in peaks],
        "steps": [{"t": t, "regions": rounded(applied.by_label(one))} for t, one in means],
    }  # fmt: skip


def rounded(values: np.ndarray) -> list[Any]:
    """Round an array for JSON."""
    return np.round(values.astype(np.float64), DIGITS).tolist()


def word_maps(example: Example, attention: np.ndarray, text: TextEncoder) -> tuple[list[str], np.ndarray]:
    """Split the pixels' attention into words of the caption.

    Args:
        example: The item.
        attention: (T,h,w) attention of the denoiser's pixels to the tokens of the caption.
        text: The text encoder.

    Returns:
        The words, and the share of each pixel's attention that each gets, (words,H,W).
    """
    words, shares = by_word(example.item.caption, attention.reshape(len(attention), -1).T, text)
    height, width = example.sketch.shape
    small = shares.T.reshape(-1, *attention.shape[1:]).astype(np.float32)
    maps = [cv2.resize(one, (width, height), interpolation=cv2.INTER_LINEAR) for one in small]
    return words, np.stack(maps) if maps else np.zeros((0, height, width), np.float32)


def _map(words: Words, example: Example, pixels: np.ndarray | None, word: int) -> np.ndarray:
    """(H,W) in [0,1]: the map of a word."""
    if words.owners[word] is None and pixels is not None and word < len(pixels):
        return pixels[word]
    shares = np.append(words.shares[:, word], 0.0)  # the last entry is for pixels without a region
    return shares[example.regions.labels]


def _grey(values: np.ndarray, peak: float) -> bytes:
    return png(np.rint(255 * values / max(peak, 1e-6)).astype(np.uint8))
