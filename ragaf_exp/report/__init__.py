"""Reports: one HTML file that shows a run's figures, curves and pictures, or compares several runs, without any other
file.
"""

from ragaf_exp.report.comparison import write_comparison
from ragaf_exp.report.page import write_report

__all__ = ["write_comparison", "write_report"]
