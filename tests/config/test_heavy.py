"""Imports of the heavy libraries."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from ragaf_exp.core.imports import stub_optional_imports

pytestmark = pytest.mark.process

LOADS = """
import gc, importlib.util, sys
from ragaf_exp.core.imports import stub_optional_imports
known = importlib.util.find_spec("bitsandbytes")
with stub_optional_imports():
    import ragaf_exp.experiments.experiment
print([name for name in ("bitsandbytes", "torch._inductor.compile_fx") if name in sys.modules])
LATER = ("eval", "matplotlib", "skimage", "ragaf_exp.report", "ragaf_exp.viz.grids")
print([name for name in LATER if name in sys.modules])
print(gc.isenabled(), importlib.util.find_spec("bitsandbytes") == known)
"""


def test_a_run_imports_no_compiler_and_no_quantisation():
    output = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert output.stdout.splitlines() == ["[]", "[]", "True True"], "nor what only evaluation and report need"


def test_hidden_imports_are_restored(monkeypatch):
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    with pytest.raises(ZeroDivisionError), stub_optional_imports():
        assert not gc.isenabled() and sys.modules["bitsandbytes"] is None
        _ = 1 / 0
    assert gc.isenabled() and "bitsandbytes" not in sys.modules
    known = object()
    monkeypatch.setitem(sys.modules, "bitsandbytes", known)
    with stub_optional_imports():
        assert sys.modules["bitsandbytes"] is known
