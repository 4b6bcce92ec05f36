"""Metrics as pure functions of NumPy arrays, without files, models or state."""
