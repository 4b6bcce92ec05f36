"""Reports: a self-contained HTML file with a run's figures, curves and pictures, or with a comparison of runs."""

from ragaf_exp.report.compare.page import write_comparison
from ragaf_exp.report.run.page import write_report
from ragaf_exp.report.study.page import is_study, write_study

__all__ = ["is_study", "write_comparison", "write_report", "write_study"]
