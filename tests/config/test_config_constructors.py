"""Schemas read from source are those that an import gives, so that a config is checked before PyTorch is loaded."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
import yaml

from ragaf_exp.config.build import locate
from ragaf_exp.config.constructors import Unreadable, read_constructor
from ragaf_exp.config.validate import constructor_schema, schema_of
from ragaf_exp.core.resources import CONF

TARGETS = sorted({text["_target_"] for path in CONF.glob("*/**/*.yaml") if "hydra" not in path.parts
                  and isinstance(text := yaml.safe_load(path.read_text()), dict) and "_target_" in text})  # fmt: skip


def fields(schema: type) -> list[tuple]:
    result = dataclasses.fields(schema)
    return [(f.name, f.type, f.default_factory() if f.default is dataclasses.MISSING else f.default) for f in result]


@pytest.mark.parametrize("target", TARGETS)
def test_a_schema_from_source_equals_that_of_an_import(target):
    try:
        read = read_constructor(target)
    except Unreadable as why:
        pytest.skip(f"left to an import: {why}")
    assert fields(schema_of(target, read)) == fields(constructor_schema(locate(target, "key")))


def test_few_constructors_need_an_import():
    unread = []
    for target in TARGETS:
        try:
            read_constructor(target)
        except Unreadable:
            unread.append(target)
    assert len(unread) <= len(TARGETS) // 10, unread


def test_no_heavy_library_for_a_checked_config():
    code = (
        "from ragaf_exp.config.compose import compose_config; import ragaf_exp.sweep.__main__, sys; compose_config([]);"
        "heavy = [m for m in ('torch', 'numpy', 'cv2', 'diffusers', 'scipy') if m in sys.modules]; assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "target", ["ragaf_exp.core.files.write_text", "ragaf_exp.nowhere.X", "os.system", "ragaf_exp.data"]
)
def test_other_targets_than_classes_of_the_package_are_not_read(target):
    with pytest.raises(Unreadable):
        read_constructor(target)
