"""Tables the predicted peaks of pretrained transformers by profile, in GiB: the last stage's training and validation.

    python -m ragaf_exp.plan.families [overrides]

Needs no device, data or weights, and takes some minutes. Example:

    python -m ragaf_exp.plan.families data.size=1024
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from ragaf_exp.config.command_line import guarded
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.imports import stub_optional_imports

FAMILIES = ("sd3", "z_image", "flux2", "flux", "qwen_image")
PROFILES = ("12gb", "24gb", "80gb")


def main() -> None:
    for line in rows(sys.argv[1:]):
        print(line, flush=True)


def rows(overrides: list[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table: the peaks of training and validation, with a star above the profile's budget."""
    with stub_optional_imports():
        from ragaf_exp.config.stages import trained
        from ragaf_exp.plan.budget import GIB, needs
        from ragaf_exp.plan.predict import VALIDATION

    yield f"| `backbone=` | {' | '.join(f'`{profile}`' for profile in PROFILES)} |"
    yield "|---" * (len(PROFILES) + 1) + "|"
    for family in FAMILIES:
        cells = []
        for profile in PROFILES:
            cfg = compose_config([f"memory={profile}", f"backbone={family}", *overrides])
            totals = [need.total / GIB for need in needs(cfg, (trained(cfg)[-1].name, VALIDATION))]
            over = "*" if max(totals) > cfg.memory.budget else ""
            cells.append(", ".join(f"{total:.2f}" for total in totals) + over)
        yield f"| `{family}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    guarded(main)
