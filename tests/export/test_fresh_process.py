"""An export in fresh processes without a network: loaded by this package and by diffusers, it gives the run's image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from images import PROMPT, difference, of_run

pytestmark = pytest.mark.process

SCRIPT = """
import socket, sys
def blocked(*_, **__):
    raise OSError("no network in this test")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = blocked
import numpy as np
folder, out, strokes, way = sys.argv[1:]
if way == "package":
    from ragaf_exp.export.pipeline import RagafPipeline
    pipeline = RagafPipeline.from_pretrained(folder)
else:
    from diffusers import DiffusionPipeline
    try:
        DiffusionPipeline.from_pretrained(folder)
    except ValueError as error:
        assert "trust_remote_code" in str(error)
    else:
        raise SystemExit("it loaded without trust_remote_code")
    pipeline = DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)
np.save(out, np.asarray(pipeline(PROMPT, np.load(strokes), seed=2).images[0]))
"""


def image(folder: Path, way: str, strokes: np.ndarray, tmp_path: Path) -> np.ndarray:
    np.save(tmp_path / "strokes.npy", strokes)
    script = SCRIPT.replace("PROMPT", repr(PROMPT))
    arguments = [folder, tmp_path / "image.npy", tmp_path / "strokes.npy", way]
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(tmp_path / "image.npy")


@pytest.mark.parametrize("way", ["package", "diffusers"])
def test_embedded_networks(way, exported, finished, strokes, tmp_path):
    assert difference(of_run(finished, strokes, 2), image(exported, way, strokes, tmp_path)) == 0


@pytest.mark.parametrize("way", ["package", "diffusers"])
def test_networks_in_stable_diffusions_layout(way, lora_export, lora_run, strokes, tmp_path):
    assert difference(of_run(lora_run, strokes, 2), image(lora_export, way, strokes, tmp_path)) == 0


def test_without_the_package_diffusers_says_what_is_missing(exported, tmp_path):
    script = ("import sys; sys.modules['ragaf_exp'] = None\nfrom diffusers import DiffusionPipeline\n"
              "DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, str(exported)], capture_output=True, text=True, timeout=240,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode != 0 and "ragaf_exp" in done.stderr.splitlines()[-1]
