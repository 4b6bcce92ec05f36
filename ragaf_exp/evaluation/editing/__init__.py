"""Measures how well the regions of a trained run can be edited."""
