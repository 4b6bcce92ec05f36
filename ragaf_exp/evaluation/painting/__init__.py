"""Measures of runs that paint after colour hints."""
