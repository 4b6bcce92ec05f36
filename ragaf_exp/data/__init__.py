"""Data sources: each has `.split(name)`, a lazy sequence of `ragaf_exp.core.types.Item`."""
