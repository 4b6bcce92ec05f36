"""Imports validation, evaluation and report at the first validation, since training steps do not need them.

They are imported together, so that a run evaluates with the code that it trained with, even if that is edited later.
"""

from __future__ import annotations

from types import SimpleNamespace

from ragaf_exp.core.imports import stub_optional_imports


def later_modules() -> SimpleNamespace:
    """The modules validation, evaluation, panels and report."""
    with stub_optional_imports():
        from ragaf_exp import report
        from ragaf_exp.evaluation import run, validation
        from ragaf_exp.viz import panels
    return SimpleNamespace(validation=validation, evaluation=run, panels=panels, report=report)
