"""The checks of an audit, on a data set's records and on what its files hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ragaf_exp.data.audit.duplicates import exact, near
from ragaf_exp.data.audit.files import Look
from ragaf_exp.data.audit.findings import ERROR, NOTE, WARNING, Finding
from ragaf_exp.data.sources.records import Record
from ragaf_exp.data.split import SPLITS

SHOWN = 8  # examples of a finding
SMALL = 0.5  # of data.size: images below it are mostly invented by enlarging
Splits = Mapping[str, str]  # key of a record -> its split


def splits_of(source: Any) -> dict[str, str]:
    """Map the keys of a source's usable records to their splits."""
    return {record.key: split for split in SPLITS for record in source.records_of(split)}


def check_all(source: Any, looks: Mapping[str, Look], size: int) -> list[Finding]:
    """Run every check.

    Args:
        source: A data source with `records`, `records_of(split)` and perhaps `remarks()`.
        looks: What its files hold, by path.
        size: Side of the items, in pixels.

    Returns:
        The findings, errors first.
    """
    records, splits = list(source.records), splits_of(source)
    findings = [
        *_missing(records), *_unreadable(looks), *_empty_splits(splits), *_straddling(records, splits),
        *_duplicates(records, looks, splits), *_sizes(records, looks, size), *_channels(looks), *_captions(records),
        *_flags(records), *(source.remarks() if hasattr(source, "remarks") else ()),
    ]  # fmt: skip
    return sorted(findings, key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))


def _missing(records: Sequence[Record]) -> Iterable[Finding]:
    bad = [record for record in records if record.problem]
    if bad:
        text = "Items without a file or partner. Restore the files, or leave the items out with data.on_error=skip."
        yield Finding(ERROR, "missing partners", len(bad), text, [f"{r.key}: {r.problem}" for r in bad[:SHOWN]],
                      [r.key for r in bad[:SHOWN]])  # fmt: skip


def _unreadable(looks: Mapping[str, Look]) -> Iterable[Finding]:
    bad = [look for look in looks.values() if look.fault]
    if bad:
        text = "Damaged files stop training. Replace them, or set data.check=true data.on_error=skip."
        yield Finding(ERROR, "unreadable files", len(bad), text, [look.fault for look in bad[:SHOWN]])


def _empty_splits(splits: Splits) -> Iterable[Finding]:
    empty = [split for split in SPLITS if split not in splits.values()]
    if empty:
        text = f"No items in {', '.join(empty)}. Raise data.val_share or data.test_share, or add images."
        yield Finding(ERROR, "empty splits", len(empty), text)


def _straddling(records: Sequence[Record], splits: Splits) -> Iterable[Finding]:
    of: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.image and record.key in splits:
            of[record.image].add(splits[record.key])
    both = sorted(path for path, names in of.items() if len(names) > 1)
    if both:
        text = "Images that are in several splits: metrics would measure memorisation."
        yield Finding(ERROR, "items that straddle splits", len(both), text, both[:SHOWN])


def _duplicates(records: Sequence[Record], looks: Mapping[str, Look], splits: Splits) -> Iterable[Finding]:
    images = {r.image: r for r in records if r.image and r.key in splits}
    looks = {path: looks[path] for path in images if path in looks}
    kinds = (("exact", ERROR, exact(looks)), ("near", WARNING, near(looks)))
    for kind, level, groups in kinds:
        across = [group for group in groups if len({splits[images[path].key] for path in group}) > 1]
        within = [group for group in groups if group not in across]
        for title, serious, some in ((f"{kind} duplicates across splits", level, across),
                                     (f"{kind} duplicates", NOTE, within)):  # fmt: skip
            if some:
                text = ("The same picture is trained on and evaluated on; remove one of each."
                        if some is across else "Repeated pictures weigh more in training.")  # fmt: skip
                yield Finding(serious, title, len(some), text, [" = ".join(group[:3]) for group in some[:SHOWN]],
                              [images[path].key for group in some[: SHOWN // 2] for path in group[:2]])  # fmt: skip


def _sizes(records: Sequence[Record], looks: Mapping[str, Look], size: int) -> Iterable[Finding]:
    of = {record.image: record.key for record in records if record.image}
    sides = {path: min(look.width, look.height) for path, look in looks.items() if not look.fault and path in of}
    small = sorted((path for path, side in sides.items() if side < SMALL * size), key=lambda path: sides[path])
    if small:
        text = f"Images whose shorter side is below half of data.size={size}: most of their pixels are interpolated."
        yield Finding(WARNING, "small images", len(small), text, [f"{path}: {sides[path]} px" for path in small[:SHOWN]],
                      [of[path] for path in small[:SHOWN]])  # fmt: skip


def _channels(looks: Mapping[str, Look]) -> Iterable[Finding]:
    odd = Counter(look.mode for look in looks.values() if not look.fault and look.mode not in ("RGB", "L", "vector"))
    turned = sum(look.turned for look in looks.values())
    if odd:
        kinds = ", ".join(f"{count} {mode}" for mode, count in odd.most_common())
        yield Finding(NOTE, "other channels", sum(odd.values()), f"{kinds}. They are converted to RGB.")
    if turned:
        yield Finding(NOTE, "turned by EXIF", turned, "They are shown upright, and their masks with them.")


def _captions(records: Sequence[Record]) -> Iterable[Finding]:
    without = [r for r in records if not any(text.strip() for text in r.captions)]
    if without:
        level = ERROR if len(without) == len(records) else WARNING
        text = "Items without a caption: nothing can be learnt about words from them."
        yield Finding(level, "empty captions", len(without), text, [r.key for r in without[:SHOWN]],
                      [r.key for r in without[:SHOWN]])  # fmt: skip


def _flags(records: Sequence[Record]) -> Iterable[Finding]:
    for flag, count in Counter(flag for record in records for flag in record.flags).most_common():
        keys = [record.key for record in records if flag in record.flags][:SHOWN]
        yield Finding(NOTE, f"flag: {flag}", count, "Remarks of the data set itself; data.drop leaves them out.", (), keys)
    levels = Counter(record.difficulty for record in records if record.difficulty is not None)
    if levels:
        text = ", ".join(f"{count} of difficulty {level}" for level, count in sorted(levels.items()))
        yield Finding(NOTE, "difficulty", sum(levels.values()), f"{text}. The report groups metrics by it.")
