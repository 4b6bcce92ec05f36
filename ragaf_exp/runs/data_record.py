"""The record of a run's data, data.json in its folder, which ensures that a run continues with the data it began with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ragaf_exp.config.build import build
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_json

log = logging.getLogger(__name__)
SCHEMA = 1
FILE = "data.json"


def check(run: Path, source: Any) -> None:
    """Compare a run's data with its record, which sources without files and runs of earlier versions do not have.

    Args:
        run: The run folder.
        source: The data source of the run's config.

    Raises:
        UserError: The data differ, or the record is damaged.
    """
    if not hasattr(source, "manifest") or not (run / FILE).is_file():
        return
    now, before = source.manifest(), read_mapping(run / FILE, SCHEMA)
    try:
        differences = now.differences(before)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(f"{run / FILE}: damaged; remove it to continue without comparing the data") from None
    if differences:
        raise UserError(f"{run}: data.root={source.root} is not what this run began with: {', '.join(differences)}; "
                        "restore it, or give another name= to train on what is there now")  # fmt: skip


def record(run: Path, source: Any) -> None:
    """Write the record, or add the checksums of files read since it was written."""
    if not hasattr(source, "manifest"):
        return
    now = source.manifest()
    if (run / FILE).is_file():
        now = now.joined(read_mapping(run / FILE, SCHEMA))
    write_json(run / FILE, {"schema": SCHEMA, "root": str(source.root), **now.as_json()})


def check_finished(run: Path, data: DictConfig) -> None:
    """Compare a finished run's data with its record, without decoding images. Missing data only cause a warning."""
    if not (run / FILE).is_file():
        return
    quick = {key: value for key, value in {"check": False, "on_error": "skip"}.items() if key in data}
    try:
        source = build(OmegaConf.merge(data, quick), "data")
    except UserError as error:
        log.warning("%s: its data can't be compared with what it was trained on: %s", run, error)
        return
    check(run, source)
