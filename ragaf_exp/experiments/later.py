"""The modules of validation, evaluation and report, imported at the first validation: training steps need none of them.

All at once, so that a run evaluates with the code that it trained with, whether that was edited since or not.
"""

from __future__ import annotations

from types import SimpleNamespace

from ragaf_exp.core.imports import stub_optional_imports


def later_modules() -> SimpleNamespace:
    """validation, evaluation, panels and report."""
    with stub_optional_imports():
        from ragaf_exp import report
        from ragaf_exp.evaluation import run, validation
        from ragaf_exp.viz import panels
    return SimpleNamespace(validation=validation, evaluation=run, panels=panels, report=report)
