"""Writes a run's scenes for the judges of other benchmarks, and reads their results into its report.

Its arguments are described in ragaf_exp.commands.judged.
"""

from ragaf_exp.commands.judged import main
from ragaf_exp.config.command_line import guarded

if __name__ == "__main__":
    guarded(main)
