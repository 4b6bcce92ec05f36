"""setup.cfg allows no version with a known hole, and constraints.txt only what setup.cfg allows."""

from __future__ import annotations

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("lowest", ROOT / ".ci" / "lowest.py")
lowest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lowest)

HOLES = {  # package -> the last version with a known hole, and which
    "diffusers": ("0.37.1", "CVE-2026-44513, CVE-2026-44827: code of a model's folder runs without trust_remote_code"),
    "hydra-core": ("1.3.3", "CVE-2026-68508: instantiate calls any target"),
    "jinja2": ("3.1.5", "CVE-2025-27516: a template breaks out of the sandbox"),
    "opencv-python-headless": ("4.8.0.76", "CVE-2023-4863: a WebP picture writes out of bounds"),
    "pillow": ("12.2.0", "CVE-2024-28219, CVE-2026-25990 and others: a picture writes out of bounds"),
    "starlette": ("0.49.0", "CVE-2025-54121, CVE-2025-62727: large forms and ranges of files block the server"),
    "torch": ("2.9.1", "CVE-2026-24747: a checkpoint runs code although weights_only is set"),
    "tqdm": ("4.66.2", "CVE-2024-34062: an option runs code"),
    "transformers": ("5.4.0", "CVE-2026-4372, CVE-2026-5241: a model's config.json runs code"),
}
REQUIRED = {canonicalize_name(r.name): r for extra in lowest.requirements().values() for r in extra}


@pytest.mark.parametrize("name", HOLES)
def test_no_version_with_a_known_hole_is_allowed(name):
    last, hole = HOLES[name]
    assert not REQUIRED[name].specifier.contains(last), hole


def test_every_package_has_one_lower_bound():
    lines = lowest.constraints()
    assert len(lines) == len(REQUIRED) and all("==" in line for line in lines)
    with pytest.raises(ValueError, match="lower bound"):
        lowest.lowest(Requirement("torch<3"))


def test_two_bounds_for_one_package_are_refused(tmp_path):
    text = "[options]\ninstall_requires =\n    a>=1\n[options.extras_require]\nx =\n    a>=2\n    ragaf_exp[y]\n"
    (tmp_path / "setup.cfg").write_text(text)
    with pytest.raises(ValueError, match="a==1 and a==2"):
        lowest.constraints(tmp_path / "setup.cfg")


def test_the_tested_packages_are_those_of_the_extras_that_test_names(tmp_path):
    text = ("[options]\ninstall_requires =\n    a>=1\n[options.extras_require]\nx =\n    b>=2\nunused =\n    c>=3\n"
            "test =\n    ragaf_exp[x]\n    d>=4\n")  # fmt: skip
    (tmp_path / "setup.cfg").write_text(text)
    assert [r.name for r in lowest.tested(tmp_path / "setup.cfg")] == ["a", "d", "b"]


def test_measured_versions_are_allowed():
    lines = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#"]
    measured = {canonicalize_name(r.name): next(iter(r.specifier)).version for r in lines}
    for name, requirement in REQUIRED.items():
        if name in measured:
            assert requirement.specifier.contains(measured[name]), f"{requirement} does not allow {measured[name]}"
    assert set(REQUIRED) - set(measured) == {"wandb"}


@pytest.mark.skipif("/build/lowest/" not in f"{sys.prefix}/", reason="not the environment of .ci/lowest")
def test_installed_versions_are_the_lowest():
    pairs = (lowest.lowest(requirement).split("==") for requirement in lowest.tested())
    higher = [f"{name} {version(name)}, not {wanted}" for name, wanted in pairs
              if name != "wandb" and not Requirement(f"x=={wanted}").specifier.contains(version(name))]  # fmt: skip
    assert not higher, higher
