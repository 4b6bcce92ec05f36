"""Evaluation metrics.

The package's name shadows a builtin, so write `from eval.metrics import ...`, never `import eval`.
"""
