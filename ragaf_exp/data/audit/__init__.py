"""Checks of a data set: what is in its files, and what is wrong with it."""
