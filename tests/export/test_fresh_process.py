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
out, way, *folders = sys.argv[1:]
for number, folder in enumerate(folders):
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
    np.save(f"{out}/{number}.npy", np.asarray(pipeline(PROMPT, np.load(f"{out}/strokes.npy"), seed=2).images[0]))
"""


def images(folders: list[Path], way: str, strokes: np.ndarray, out: Path) -> list[np.ndarray]:
    """The image of each export, all by one process."""
    np.save(out / "strokes.npy", strokes)
    arguments = [out, way, *folders]
    script = SCRIPT.replace("PROMPT", repr(PROMPT))
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return [np.load(out / f"{number}.npy") for number in range(len(folders))]


@pytest.mark.parametrize("way", ["package", "diffusers"])
def test_embedded_networks_and_those_in_stable_diffusions_layout(
    way, exported, finished, lora_export, lora_run, strokes, tmp_path
):
    theirs = images([exported, lora_export], way, strokes, tmp_path)
    for run, image in zip((finished, lora_run), theirs, strict=True):
        assert difference(of_run(run, strokes, 2), image) == 0, run


def test_without_the_package_diffusers_says_what_is_missing(exported, tmp_path):
    script = ("import sys; sys.modules['ragaf_exp'] = None\nfrom diffusers import DiffusionPipeline\n"
              "DiffusionPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, str(exported)], capture_output=True, text=True, timeout=240,
                          cwd=tmp_path)  # fmt: skip
    assert done.returncode != 0 and "ragaf_exp" in done.stderr.splitlines()[-1]
