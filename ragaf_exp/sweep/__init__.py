"""Sweeps: many runs that answer one question, submitted once, run from a code snapshot, monitored and resumed."""
