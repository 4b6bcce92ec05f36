"""Audits a data set: what it holds, and what is wrong with it.

    python -m ragaf_exp.audit data=NAME data.root=DIR [out=audit.html] [limit=N] [overrides]

Reports counts, sizes and channels; missing partners, unreadable files and flags; exact and near duplicates, also across
splits; images that straddle splits and known leaks; captions that are empty, longer than the text encoder reads, or have
words that it does not know. Writes a page with thumbnails. Exit status 1 if there is an error. limit: the number of files
inspected; 0, the default, is all. Example:

    python -m ragaf_exp.audit data=sketchy data.root=256x256 out=sketchy.html
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.writable import check_file

OWN = {"out": str, "limit": int}
AUDITED = "coco, folder, fscoco, hf, openmoji, quickdraw, sketchy, sketchycoco, tuberlin"


def main() -> None:
    own = [argument for argument in sys.argv[1:] if argument.partition("=")[0] in OWN]
    args = parse_args(own, OWN)
    out, limit = Path(args.get("out", "audit.html")), args.get("limit", 0)
    if limit < 0:
        raise UserError(f"limit={limit}: must be 0, for all files, or more")
    check_file(out, "out")
    overrides = [argument for argument in sys.argv[1:] if argument not in own]
    errors = _audit(overrides, out, limit)
    sys.exit(1 if errors else 0)


def _audit(overrides: list[str], out: Path, limit: int) -> int:
    """Audit the data of a config, print and write the findings, and return the number of errors."""
    from ragaf_exp.commands.audit_captions import caption_findings
    from ragaf_exp.config.compose import compose_config
    from ragaf_exp.data.audit.checks import check_all
    from ragaf_exp.data.audit.findings import ERROR, NOTE, WARNING, count_of
    from ragaf_exp.report.audit import write_page

    cfg = compose_config(overrides)
    source = _source(cfg)
    looks = _inspected(source, limit)
    findings = check_all(source, looks, cfg.data.size) + caption_findings(cfg, source)
    findings.sort(key=lambda finding: (ERROR, WARNING, NOTE).index(finding.level))
    for finding in findings:
        print(f"{finding.level:8}{finding.count:>8}  {finding.check}: {finding.text}")
        for example in finding.examples[:3]:
            print(f"{'':18}{example}")
    errors = count_of(ERROR, findings)
    write_page(out, source, looks, findings)
    warnings = count_of(WARNING, findings)
    print(f"{len(source.records)} items, {len(looks)} files, {errors} errors, {warnings} warnings: {out}")
    return errors


def _source(cfg: Any) -> Any:
    from omegaconf import OmegaConf

    from ragaf_exp.config.build import build

    quick = {key: value for key, value in {"check": False, "on_error": "skip"}.items() if key in cfg.data}
    source = build(OmegaConf.merge(cfg.data, quick), "data")
    if not hasattr(source, "records"):
        name = cfg.data._target_.rpartition(".")[2]
        raise UserError(f"data: {name} is rendered, so that there are no files to audit; take one of {AUDITED}")
    return source


def _inspected(source: Any, limit: int) -> dict[str, Any]:
    from tqdm import tqdm

    from ragaf_exp.data.audit.files import inspect, inspect_items, is_raster

    records = [record for record in source.records if not record.problem]
    paths = list(dict.fromkeys(path for r in records for path in (r.image, r.drawing) if is_raster(path)))
    paths = paths[:limit] if limit else paths
    vector = [record for record in records if not (is_raster(record.image) or is_raster(record.drawing))]
    vector = vector[: limit - len(paths)] if limit else vector
    total = len(paths) + len(vector)
    with tqdm(total=total, desc="files", unit="file", mininterval=1.0, disable=not sys.stderr.isatty()) as bar:
        return inspect(Path(source.root), paths, bar.update) | inspect_items(source, vector, bar.update)


if __name__ == "__main__":
    guarded(main)
