"""Locations of conf/ and sweeps/: next to the packages in a checkout, inside this package in an installed wheel."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def resource_folder(name: str) -> Path:
    """Locate the folder conf or sweeps."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


CONF, SWEEPS = resource_folder("conf"), resource_folder("sweeps")
