"""Metrics as pure functions of numpy arrays: no files, no models, no state."""
