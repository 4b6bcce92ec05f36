"""The report of a run: one HTML file that shows its figures, curves and pictures without any other file."""

from ragaf_exp.report.page import write_report

__all__ = ["write_report"]
