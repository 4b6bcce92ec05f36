"""Sweeps: many runs as one question. Submitted once, run from a snapshot, told truly, continued where they stopped."""
