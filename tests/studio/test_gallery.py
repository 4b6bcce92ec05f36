"""The gallery of runs: those that are finished, are being trained, or are damaged."""

from __future__ import annotations

import io
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ragaf_exp.studio.gallery import Gallery


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    """Two runs of one experiment: one finished, and a copy that looks as if it were being trained."""
    root = tmp_path / "runs"
    shutil.copytree(finished, root / "study" / "0123456789ab")
    second = shutil.copytree(finished, root / "study" / "abcdef012345")
    status = json.loads((second / "status.json").read_text())
    status |= {"state": "running", "trained": False, "stage": "refine", "step": 3, "steps": 9, "updated": time.time()}
    (second / "status.json").write_text(json.dumps(status))
    (second / "metrics.json").unlink()
    (root / "latest").symlink_to(second)
    return root


def test_runs_are_listed_the_newest_first(runs):
    listed = Gallery(runs).listed()
    running, done = listed["runs"]
    assert running["state"] == "running" and running["steps"] == {"refine": [3, 9]} and running["headline"] == []
    assert done["state"] == "finished" and done["picture"] == "test/grid.png" and done["error"] is None
    assert {"Binding accuracy", "Sketch F1"} <= {figure["name"] for figure in done["headline"]}
    (study,) = listed["studies"]
    assert study["name"] == "study" and sorted(study["runs"]) == sorted([running["id"], done["id"]])


def test_a_run_has_pictures_curves_and_figures(runs):
    gallery = Gallery(runs)
    identity = gallery.listed()["runs"][1]["id"]
    run = gallery.run(identity)
    titles = [curve["title"] for curve in run["curves"]]
    assert titles[:2] == ["Stage 1, coarse: loss", "Stage 1, coarse: loss with another item's condition"]
    (diffusion,) = [series for series in run["curves"][0]["series"] if series["name"] == "diffusion"]
    steps = [step for step, _ in diffusion["points"]]
    assert steps == sorted(steps) and steps[-1] == 8 and all(np.isfinite(value) for _, value in diffusion["points"])
    binding = next(row for row in run["metrics"] if row["name"] == "Binding accuracy" and not row["of"])
    assert 0 <= binding["low"] <= binding["value"] <= binding["high"] <= 1 and binding["n"] > 0
    names = [picture["name"] for picture in run["pictures"]]
    assert names[0] == "test/grid.png" and names[1].startswith("refine-") and "test/0000/attention.gif" in names
    for name in names:
        assert Image.open(io.BytesIO(gallery.picture(identity, name))).size[0] > 0
    titles = {picture["name"]: picture["title"] for picture in run["pictures"]}
    assert titles["test/0000/attention.gif"].startswith("attention over time: ")


def test_a_study_compares_its_runs(runs):
    gallery = Gallery(runs)
    (study,) = gallery.listed()["studies"]
    content = gallery.run(study["id"])["members"]
    assert len(content["rows"]) == 2 and len({row["id"] for row in content["rows"]}) == 2
    assert content["curves"] and all(len(curve["series"]) == 2 for curve in content["curves"])


def test_new_figures_show_without_a_restart(runs):
    gallery = Gallery(runs)
    identity = gallery.listed()["runs"][0]["id"]
    before = gallery.run(identity)["curves"][0]["series"][0]["points"]
    with open(runs / "study" / "abcdef012345" / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"stage": "coarse", "step": 99, "loss": 0.25, "loss_diffusion": 0.25}) + "\n")
    assert gallery.run(identity)["curves"][0]["series"][0]["points"] == [*before, [99, 0.25]]


@pytest.mark.parametrize("name", [
    "../status.json", "status.json", "/etc/passwd", "test/../../status.json", "", "test/secret.png",
])  # fmt: skip
def test_only_listed_pictures_of_the_run_itself_are_sent(runs, name, tmp_path):
    gallery = Gallery(runs)
    identity = gallery.listed()["runs"][1]["id"]
    secret = tmp_path / "secret.png"
    Image.new("RGB", (2, 2)).save(secret)
    (runs / "study" / "0123456789ab" / "samples" / "test" / "secret.png").symlink_to(secret)
    assert gallery.picture(identity, name) is None
    assert gallery.picture("0" * 12, "test/grid.png") is None and gallery.run("0" * 12) is None


def test_a_damaged_run_is_listed_with_the_reason(runs):
    (runs / "study" / "0123456789ab" / "metrics.json").write_text("{")
    (runs / "study" / "abcdef012345" / "status.json").write_text("[]")
    listed = Gallery(runs).listed()["runs"]
    assert len(listed) == 2 and all("\n" not in run["error"] and "damaged" in run["error"] for run in listed)


def test_links_to_folders_outside_are_not_followed(runs, tmp_path):
    outside = shutil.move(runs / "study" / "0123456789ab", tmp_path / "fedcba987654")
    (runs / "study" / "0123456789ab").symlink_to(outside)
    (runs / "other").symlink_to(tmp_path)
    assert len(Gallery(runs).listed()["runs"]) == 1


def test_routes_of_the_gallery(client, worker, static):
    listed = client.get("/api/gallery").json()
    (run,) = listed["runs"]
    assert run["name"].startswith("tiny/") and listed["studies"] == []
    assert client.get(f"/api/gallery/{run['id']}").json()["pictures"]
    picture = client.get(f"/api/gallery/{run['id']}/{run['picture']}")
    assert picture.status_code == 200 and picture.headers["content-type"] == "image/png"
    for path in (f"{run['id']}/../../status.json", f"{run['id']}/nothing.png", "0" * 12, f"{run['id']}/%2e%2e/config.yaml"):
        assert client.get(f"/api/gallery/{path}").status_code == 404
