"""python -m eval: see ragaf_exp.commands.evaluate."""

from ragaf_exp.commands.evaluate import main
from ragaf_exp.config.command_line import guarded

if __name__ == "__main__":
    guarded(main)
