"""Jobs of the studio on a trained run: events, files, redoing a region, stopping, and edits of images."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from ragaf_exp.data.uploads import data_url, png
from ragaf_exp.studio.files import LAST_MS, STEP_MS
from ragaf_exp.studio.jobs import Job
from tests.studio.conftest import client_of, events


def pixels(url: str | bytes) -> np.ndarray:
    content = url if isinstance(url, bytes) else base64.b64decode(url.partition(",")[2])
    return np.asarray(Image.open(io.BytesIO(content)))


def kinds(listed: list[dict]) -> list[str]:
    return list(dict.fromkeys(event["event"] for event in listed))


def one(listed: list[dict], kind: str) -> dict:
    (event,) = [event for event in listed if event["event"] == kind]
    return event


def test_a_job_reports_everything_in_order(finish, recipe):
    listed = finish(recipe)
    assert [event["id"] for event in listed] == list(range(1, len(listed) + 1))
    assert kinds(listed) == ["queued", "started", "step", "stage1", "stage2", "attention", "fusion", "done"]
    steps = [event for event in listed if event["event"] == "step"]
    assert one(listed, "started")["steps"] == len(steps) == 4
    assert [(step["stage"], step["n"], step["of"]) for step in steps] == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    assert all(pixels(step["image"]).shape == (32, 32, 3) for step in steps)
    done = one(listed, "done")
    assert np.array_equal(pixels(done["image"]), pixels(one(listed, "stage2")["image"]))
    assert done["changed"] is None and len(done["colours"]) == 3 and done["recipe"]["run"]["name"].startswith("tiny/")


def test_attention_and_fusion_of_every_region(finish, recipe):
    listed = finish(recipe)
    attention, fusion = one(listed, "attention"), one(listed, "fusion")
    words = [(word["word"], word["source"], word["region"]) for word in attention["words"]]
    assert words == [("a", "caption", None), ("mint", "caption", None), ("background", "caption", None),
                     ("red", "prompt", 1), ("blue", "prompt", 2)]  # fmt: skip
    shares = np.array(attention["regions"])
    assert shares.shape == (3, 5) and (shares >= 0).all() and (shares.sum(1) <= 1.01).all()
    assert shares[1].tolist() == [0, 0, 0, 1, 0] and shares[2].tolist() == [0, 0, 0, 0, 1]  # a prompt is read alone
    assert (shares[0, 3:] == 0).all()
    maps = [pixels(url) for url in attention["maps"]]
    assert len(maps) == 5 and all(one_map.shape == (32, 32) for one_map in maps)
    labels = np.frombuffer(base64.b64decode(recipe["labels"]), "<i2").reshape(32, 32)
    assert (maps[3][labels == 1] == 255).all() and (maps[3][labels != 1] == 0).all()
    assert len(attention["steps"]) == 2 and np.array(attention["steps"][0]["regions"]).shape == (3, 3)
    assert fusion["t"] == sorted(fusion["t"], reverse=True) and np.array(fusion["sketch"]).shape == (2, 3)
    assert np.allclose(np.array(fusion["sketch"]) + np.array(fusion["text"]), 1, atol=0.01)


def test_regions_keep_the_numbers_of_the_recipe(finish, recipe):
    """The labels of a recipe from elsewhere need not be in the order of areas."""
    labels = np.frombuffer(base64.b64decode(recipe["labels"]), "<i2").reshape(32, 32)
    turned = np.choose(labels, [2, 0, 1]).astype("<i2")
    listed = finish({**recipe, "labels": base64.b64encode(turned.tobytes()).decode(),
                     "regions": [{"prompt": "red"}, {"prompt": "blue"}, {}]})  # fmt: skip
    attention, plain = one(listed, "attention"), one(finish(recipe), "attention")
    assert [(word["word"], word["region"]) for word in attention["words"][3:]] == [("red", 0), ("blue", 1)]
    assert [attention["regions"][i] for i in (2, 0, 1)] == plain["regions"]
    assert np.array_equal(pixels(one(listed, "done")["image"]), pixels(one(finish(recipe), "done")["image"]))


def test_without_details_only_the_images_are_reported(finish, recipe):
    listed = finish(recipe, details=False)
    assert kinds(listed) == ["queued", "started", "step", "stage1", "stage2", "done"]
    assert all(event["image"] is None for event in listed if event["event"] == "step")
    assert not {"evolution.gif", "attention.png"} & set(one(listed, "done")["files"])
    assert np.array_equal(pixels(one(listed, "done")["image"]), pixels(one(finish(recipe), "done")["image"]))


def test_a_plain_drawing_gives_the_image_of_the_command_line(cli, client, finish, finished, drawing, recipe, tmp_path):
    from ragaf_exp.sample import main

    (tmp_path / "drawing.png").write_bytes(drawing)
    made = tmp_path / "made"
    status, _, err = cli(main, f"run={finished}", f"sketch={tmp_path}/drawing.png", 'prompt="a red circle"', f"out={made}",
                         "seed=3", "steps=2", "attention=false")  # fmt: skip
    assert status == 0, err
    done = one(finish({**recipe, "regions": [], "caption": "a red circle", "seed": 3}), "done")
    difference = pixels(done["image"]).astype(int) - pixels((made / "stage2.png").read_bytes())
    assert abs(difference).max() <= 1  # the page sends the drawing with 256 levels


def duration_of(moving: Image.Image) -> int:
    """Milliseconds of an animation."""
    durations = []
    for frame in ImageSequence.Iterator(moving):
        frame.load()
        durations.append(frame.info["duration"])
    return sum(durations)


def test_files_of_a_job(client, finish, recipe):
    listed = finish(recipe)
    job, names = listed[-1]["job"], one(listed, "done")["files"]
    assert set(names) == {"stage1.png", "stage2.png", "evolution.gif", "evolution.webp", "attention.png",
                          "attention.gif", "labels.png", "recipe.json"}  # fmt: skip
    contents = {name: client.get(f"/api/jobs/{job}/{name}") for name in names}
    assert all(answer.status_code == 200 for answer in contents.values())
    for name in ("evolution.gif", "evolution.webp"):
        moving = Image.open(io.BytesIO(contents[name].content))
        # Pillow merges frames that are equal in a GIF's colours, with the sum of their durations
        assert duration_of(moving) == 3 * STEP_MS + LAST_MS and moving.n_frames > 1 and moving.size == (256, 256)
        assert contents[name].headers["content-type"] == f"image/{name[10:]}"
    assert Image.open(io.BytesIO(contents["attention.gif"].content)).n_frames == 2
    assert np.array_equal(pixels(contents["stage2.png"].content), pixels(one(listed, "done")["image"]))
    assert json.loads(contents["recipe.json"].content)["caption"] == recipe["caption"]
    assert set(np.unique(pixels(contents["labels.png"].content))) == {0, 1, 2}
    for name in ("nothing.png", "..%2fstage1.png", "stage1.png%00"):
        assert client.get(f"/api/jobs/{job}/{name}").status_code == 404
    other = {"x-studio-client": "second-client"}
    for path in ("events", "stage1.png"):
        assert client.get(f"/api/jobs/{job}/{path}", headers=other).status_code == 404
    assert client.delete(f"/api/jobs/{job}", headers=other).status_code == 404


def test_a_stream_resumes_after_the_last_event(client, finish, recipe):
    listed = finish(recipe)
    path = f"/api/jobs/{listed[-1]['job']}/events"
    rest = events(client.get(path, headers={"last-event-id": "5"}).text)
    assert [event["id"] for event in rest] == [event["id"] for event in listed][5:]
    assert rest[-1]["event"] == "done" and client.get(path, headers={"last-event-id": str(len(listed))}).text == ""
    assert len(events(client.get(path, headers={"last-event-id": "x" * 100}).text)) == len(listed)


def test_redoing_a_region_keeps_the_rest_to_the_bit(finish, recipe):
    first = one(finish(recipe), "done")
    redone = finish({**recipe, "keep": first["image"], "redo": [2], "redo_strength": 1, "grow": 0,
                     "regions": [{}, {"prompt": "red"}, {"prompt": "green"}]})  # fmt: skip
    assert "stage1" not in kinds(redone)
    before, after = pixels(first["image"]), pixels(one(redone, "done")["image"])
    labels = np.frombuffer(base64.b64decode(recipe["labels"]), "<i2").reshape(32, 32)
    assert np.array_equal(before[labels != 2], after[labels != 2]) and (before[labels == 2] != after[labels == 2]).any()
    assert 0 < one(redone, "done")["changed"] <= (labels == 2).mean()


@pytest.mark.parametrize("change, says", [
    ({"keep": "x" * 8, "redo": [1]}, "keep"), ({"keep": png(np.zeros((8, 8, 3), np.uint8)), "redo": [1]}, "8x8"),
    ({"redo": [7]}, "redo=7"), ({"regions": [{"importance": float("nan")}]}, "importance=nan"),
    ({"regions": [{"importance": 2.5}]}, "from 0 to 2"), ({"regions": [{"prompt": "x" * 201}]}, "201 characters"),
    ({"regions": [{}] * 65}, "at most 64"), ({"seed": -1}, "seed=-1"), ({"steps": 1.5}, "whole number"),
    ({"steps": True}, "steps=True"), ({"scheduler": 3}, "scheduler"), ({"surprise": 1}, "unknown key"),
    ({"schema": 2}, "schema=2"),
    ({"kind": "rm -rf"}, "kind"), ({"labels": "AAAA"}, "labels"), ({"strokes": [{"points": [[0, "<b>"]]}]}, "strokes"),
    ({"strokes": [{"points": [[0, 0]] * 20_001}]}, "20001 points"), ({"width": 10**9}, "width"),
])  # fmt: skip
def test_invalid_recipes_are_refused_before_they_are_queued(client, recipe, change, says):
    keep = change.get("keep")
    change = {**change, "keep": data_url(keep)} if isinstance(keep, bytes) else change
    answer = client.post("/api/jobs", content=json.dumps({"recipe": {**recipe, **change}}))
    assert answer.status_code == 400 and says in answer.json()["error"] and "\n" not in answer.json()["error"], answer.text


def test_what_only_the_run_can_refuse_ends_the_job_with_one_line(finish, recipe):
    picture = png(np.zeros((32, 32, 3), np.uint8))
    locked = {**recipe, "keep": data_url(picture), "redo": [1], "regions": [{}, {"locked": True}]}
    assert "not locked" in finish(locked)[-1]["error"]
    assert "dpm" in finish({**recipe, "scheduler": "nonsense"})[-1]["error"]
    small = {**recipe, "width": 8, "height": 8, "sketch": base64.b64encode(bytes(64)).decode(),
             "labels": base64.b64encode(bytes(128)).decode()}  # fmt: skip
    assert "this run samples 32" in finish(small)[-1]["error"]


def test_html_in_a_prompt_stays_text(finish, recipe):
    listed = finish({**recipe, "caption": "<script>alert(1)</script> red", "regions": [{}, {"prompt": "<img src=x> red"}]})
    assert listed[-1]["event"] == "done" and listed[-1]["recipe"]["caption"].startswith("<script>")


def test_jobs_need_a_client_that_has_none(client, worker, recipe):
    for name in ("", "short", "x" * 65, "has space", "../../etc"):
        assert client.post("/api/jobs", json={"recipe": recipe}, headers={"x-studio-client": name}).status_code == 400
    assert client.get("/api/jobs/0123/events").status_code == 404


def test_the_queue_is_bounded_and_a_stop_takes_effect_within_a_step(client, worker, recipe, monkeypatch):
    """A step of the running job is held until the others are queued, refused and stopped."""
    entered, release, steps = threading.Event(), threading.Event(), []
    report = Job.report

    def held(job: Job, kind: str, **data: object) -> None:
        report(job, kind, **data)
        if kind == "step":
            steps.append(job.client)
            entered.set()
            assert release.wait(60)

    monkeypatch.setattr(Job, "report", held)

    def post(name: str):
        return client.post("/api/jobs", json={"recipe": recipe, "details": False}, headers={"x-studio-client": name})

    running = post("client-running").json()["job"]
    assert entered.wait(60)
    waiting = [post(f"client-{i:04d}") for i in range(4)]
    assert [answer.json()["ahead"] for answer in waiting] == [1, 2, 3, 4]
    refused = post("client-refused")
    assert refused.status_code == 429 and "4 jobs are waiting" in refused.json()["error"]
    assert post("client-running").status_code == 429
    for i, answer in enumerate(waiting):
        header = {"x-studio-client": f"client-{i:04d}"}
        assert client.delete(f"/api/jobs/{answer.json()['job']}", headers=header).json() == {"stopped": True}
    mine = {"x-studio-client": "client-running"}
    assert client.delete(f"/api/jobs/{running}", headers=mine).json() == {"stopped": True}
    release.set()
    listed = events(client.get(f"/api/jobs/{running}/events", headers=mine).text)
    assert listed[-1]["event"] == "stopped" and steps == ["client-running"]
    assert client.delete(f"/api/jobs/{running}", headers=mine).json() == {"stopped": False}


def test_an_unexpected_failure_ends_the_job_and_the_next_one_works(finish, recipe, worker, monkeypatch):
    def fail(job: Job) -> None:
        raise RuntimeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(worker.studio, "_work", fail)
        listed = finish(recipe)
    assert listed[-1]["event"] == "error" and "terminal" in listed[-1]["error"] and "defect" not in listed[-1]["error"]
    assert finish(recipe)[-1]["event"] == "done"


@pytest.mark.long
def test_memory_stays_flat_over_jobs(finish, recipe, worker):
    import gc

    import psutil

    process = psutil.Process()

    def used() -> int:
        gc.collect()
        return process.memory_info().rss

    for seed in range(8):
        finish({**recipe, "seed": seed}, details=False)
    before = used()
    for seed in range(16):
        finish({**recipe, "seed": seed}, details=False)
    assert used() < 1.05 * before


def test_painting_over_a_part_of_an_image_changes_nothing_else(client, finish):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 90, 3), np.uint8)
    mask = np.zeros((60, 90), np.uint8)
    mask[20:40, 30:60] = 255
    edit = {"schema": 1, "kind": "edit", "image": data_url(png(image)), "mask": data_url(png(mask)),
            "caption": "a red circle", "steps": 4, "resamplings": 1}  # fmt: skip
    listed = finish(edit)
    done = one(listed, "done")
    result = pixels(done["image"])
    assert result.shape == image.shape and np.array_equal(result[mask == 0], image[mask == 0])
    assert (result[mask > 0] != image[mask > 0]).any() and 0 < done["changed"] <= (mask > 0).mean() + 1e-3
    assert "image" not in done["recipe"] and done["recipe"]["caption"] == "a red circle"
    again = client.post("/api/recipe", content=base64.b64decode(done["image"].partition(",")[2])).json()["recipe"]
    assert np.array_equal(pixels(one(finish({k: v for k, v in again.items()}), "done")["image"]), result)


@pytest.mark.parametrize("change, says", [
    ({"mask": None}, "paint over"), ({"mask": png(np.zeros((8, 9, 3), np.uint8))}, "9x8"),
    ({"mask": png(np.zeros((60, 90), np.uint8))}, "is empty"),
])  # fmt: skip
def test_masks_that_do_not_fit_are_refused(finish, change, says):
    edit = {"schema": 1, "kind": "edit", "image": data_url(png(np.zeros((60, 90, 3), np.uint8))),
            **{key: value and data_url(value) for key, value in change.items()}}  # fmt: skip
    listed = finish(edit)
    assert listed[-1]["event"] == "error" and says in listed[-1]["error"]


def test_results_are_written_to_a_folder_as_well(worker, static, recipe, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(worker.studio, "out", tmp_path)
    client = client_of(worker, static)
    job = client.post("/api/jobs", json={"recipe": recipe, "details": False}).json()["job"]
    done = events(client.get(f"/api/jobs/{job}/events").text)[-1]
    assert done["event"] == "done"
    while worker.jobs.running is not None:
        threading.Event().wait(0.02)
    (folder,) = tmp_path.iterdir()
    assert np.array_equal(pixels((folder / "stage2.png").read_bytes()), pixels(done["image"]))
    assert json.loads((folder / "result.json").read_text())["edits"][1]["read"] == "red"
    assert (folder / "recipe.json").exists()
