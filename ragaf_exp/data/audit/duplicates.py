"""Exact and near duplicates among images, and those that lie in different splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from ragaf_exp.data.audit.files import Look, is_flat

NEAR = 3  # bits by which the hashes of near duplicates differ at most
BAND = 16  # bits: hashes that differ in at most NEAR of 64 bits are equal in one of four bands
CROWDED = 500  # images of one band, beyond which they are too many to compare


def exact(looks: Mapping[str, Look]) -> list[list[str]]:
    """Group the paths of images with the same bytes, the largest group first."""
    groups: dict[str, list[str]] = defaultdict(list)
    for look in looks.values():
        if not look.fault:
            groups[look.checksum].append(look.path)
    return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)


def near(looks: Mapping[str, Look]) -> list[tuple[str, str]]:
    """List pairs of images that look alike but differ in their bytes; images without structure are left out."""
    bands: dict[tuple[int, int], list[Look]] = defaultdict(list)
    for look in looks.values():
        if not look.fault and not is_flat(look.hash):
            for band in range(64 // BAND):
                bands[band, look.hash >> band * BAND & (1 << BAND) - 1].append(look)
    pairs: dict[tuple[str, str], int] = {}
    for group in bands.values():
        if len(group) <= CROWDED:
            pairs |= {pair: bits for pair, bits in _alike(group)}
    return sorted(pairs, key=lambda pair: (pairs[pair], pair))


def _alike(group: list[Look]) -> Iterator[tuple[tuple[str, str], int]]:
    for index, first in enumerate(group):
        for second in group[index + 1 :]:
            bits = (first.hash ^ second.hash).bit_count()
            if bits <= NEAR and first.checksum != second.checksum:
                yield (min(first.path, second.path), max(first.path, second.path)), bits
