"""Score a run again: python -m eval run=DIR [items=N]."""

from __future__ import annotations

import sys

from ragaf_exp.cli import guarded, parse_args
from ragaf_exp.errors import UserError


def main() -> None:
    args = parse_args(sys.argv[1:], {"run": str, "items": int})
    if "run" not in args:
        raise UserError("run=: missing; give a run folder, as run=runs/latest")
    if args.get("items", 1) < 0:
        raise UserError(f"items={args['items']}: must be at least 0 (0 = all)")
    from ragaf_exp.experiment import evaluate_run
    from ragaf_exp.report import write_report
    from ragaf_exp.runfolder import RunFolder
    from ragaf_exp.summary import print_summary

    folder, cfg = RunFolder.read(args["run"])
    cfg.eval.test_items = args.get("items", cfg.eval.test_items)
    evaluate_run(folder, cfg)
    write_report(folder.path)
    print_summary(folder)


if __name__ == "__main__":
    guarded(main)
