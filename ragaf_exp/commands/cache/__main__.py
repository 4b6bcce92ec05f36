"""The cache of sketches, regions and graphs: python -m ragaf_exp.commands.cache show|warm|prune.

show [folder=DIR]                                   entries, size, age, by config
warm [overrides as ragaf_exp.run's] [workers=N]     fills it with all splits of a config's data
prune [folder=DIR] [gigabytes=X|all]                removes the least recently used entries beyond X, or all; the
                                                    evaluation's features, likewise
"""

from __future__ import annotations

import sys

from ragaf_exp.config.command_line import guarded
from ragaf_exp.core.errors import UserError

COMMANDS = ("show", "warm", "prune")


def main() -> None:
    command, *words = sys.argv[1:] or [""]
    if command not in COMMANDS:
        raise UserError(
            f"{command or 'no command'}: give one of {', '.join(COMMANDS)}, as in ragaf_exp.commands.cache show"
        )
    if command == "warm":
        from ragaf_exp.commands.cache.warm import warm  # heavy

        warm(words)
        return
    from ragaf_exp.commands.cache import inspect

    (inspect.show if command == "show" else inspect.prune)(words)


if __name__ == "__main__":
    guarded(main)
