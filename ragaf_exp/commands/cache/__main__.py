"""Inspects, fills and prunes the cache of sketches, regions and graphs.

    python -m ragaf_exp.commands.cache show [folder=DIR]
    python -m ragaf_exp.commands.cache warm [overrides as of ragaf_exp.run] [workers=N]
    python -m ragaf_exp.commands.cache prune [folder=DIR] [gigabytes=X|all]

show: entries, size and age by config. warm: compute all splits of a config's data. prune: remove the least recently used
entries beyond X GB, or all, and likewise the features of the evaluation. Example:

    python -m ragaf_exp.commands.cache warm data=openmoji workers=2
"""

from __future__ import annotations

import sys

from ragaf_exp.config.command_line import guarded
from ragaf_exp.core.errors import UserError

COMMANDS = ("show", "warm", "prune")


def main() -> None:
    command, *arguments = sys.argv[1:] or [""]
    if command not in COMMANDS:
        raise UserError(
            f"{command or 'no command'}: give one of {', '.join(COMMANDS)}, e.g. ragaf_exp.commands.cache show"
        )
    if command == "warm":
        from ragaf_exp.commands.cache.warm import warm  # heavy

        warm(arguments)
        return
    from ragaf_exp.commands.cache import inspect

    (inspect.show if command == "show" else inspect.prune)(arguments)


if __name__ == "__main__":
    guarded(main)
