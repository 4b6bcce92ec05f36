"""Checkpoints: whole or not there, the newest whole one is loaded, nothing pickled; atomic writes; run folders."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core import files
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs import checkpoints
from ragaf_exp.runs.checkpoints import Checkpoint, load_newest, save
from ragaf_exp.runs.folder import RunFolder

PARTS = ("model", "ema", "optimizer")


def made(step: int) -> Checkpoint:
    """A checkpoint whose numbers all equal its step; one tensor isn't contiguous."""
    model = {"w": torch.full((2, 3), float(step)).t(), "b": torch.tensor([step])}
    return Checkpoint("coarse", step, model, {"w": torch.zeros(2) + step}, {"w/step": torch.tensor(float(step))})


def load(folder: Path, step: int | None) -> None:
    """Assert which step is loaded, and that it is what was saved."""
    result = load_newest(folder, "coarse")
    if step is None:
        assert result is None
        return
    assert result.step == step
    for part in PARTS:
        wanted, have = getattr(made(step), part), getattr(result, part)
        assert set(wanted) == set(have) and all(torch.equal(wanted[k], have[k]) for k in wanted)


def test_what_is_saved_is_loaded_and_only_the_newest_are_kept(tmp_path):
    load(tmp_path, None)
    for step in (3, 6, 9, 100000000 - 1):
        place = save(tmp_path, made(step), keep=2)
        load(tmp_path, step)
    assert sorted(p.name for p in (tmp_path / "coarse").iterdir()) == ["00000009", "99999999"]
    assert sorted(p.suffix for p in place.iterdir()) == [".json", *[".safetensors"] * 3], "nothing pickled"
    assert load_newest(tmp_path, "refine") is None
    assert load_newest(tmp_path, "coarse", parts=("ema",)).model == {}


@pytest.fixture
def three(tmp_path: Path) -> Path:
    for step in (1, 2, 3):
        save(tmp_path, made(step), keep=3)
    return tmp_path


def newest(folder: Path) -> Path:
    return folder / "coarse" / "00000003"


DAMAGE = {
    "no state": lambda place: (place / "state.json").unlink(),
    "empty state": lambda place: (place / "state.json").write_text(""),
    "state cut short": lambda place: (place / "state.json").write_text('{"schema": 1, "st'),
    "state is a list": lambda place: (place / "state.json").write_text("[1, 2]"),
    "state of another step": lambda place: _edit(place, step=2),
    "sums are missing": lambda place: _edit(place, sha256={}),
    "sums are no mapping": lambda place: _edit(place, sha256=3),
    "no model": lambda place: (place / "model.safetensors").unlink(),
    "model of no bytes": lambda place: (place / "model.safetensors").write_bytes(b""),
    "optimizer cut short": lambda place: _cut(place / "optimizer.safetensors"),
    "another ema": lambda place: shutil.copy(place.parent / "00000002" / "ema.safetensors", place),
    "an empty folder": lambda place: [file.unlink() for file in place.iterdir()],
}


def _edit(place: Path, **changes) -> None:
    state = json.loads((place / "state.json").read_text())
    (place / "state.json").write_text(json.dumps(state | changes))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_passed_over(damage, three, caplog):
    DAMAGE[damage](newest(three))
    with caplog.at_level(logging.WARNING):
        load(three, 2)
    (line,) = [r.getMessage() for r in caplog.records]
    assert str(newest(three)) in line and "falling back" in line
    save(three, made(3), keep=3)  # training gets there again
    load(three, 3)


def test_damaged_newer_ones_do_not_push_out_what_training_saves_before_them(three):
    for step in ("00000002", "00000003"):
        _cut(three / "coarse" / step / "model.safetensors")
    load(three, 1)
    shutil.rmtree(three / "coarse" / "00000001")
    save(three, made(1), keep=1)
    load(three, 1)
    assert [place.name for place in (three / "coarse").iterdir()] == ["00000001"]


def test_all_damaged_is_none(three, caplog):
    for place in (three / "coarse").iterdir():
        _cut(place / "ema.safetensors")
    load(three, None)
    assert len(caplog.records) == 3


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_byte_of_the_tensors_is_detected(three, data):
    path = newest(three) / f"{data.draw(st.sampled_from(PARTS))}.safetensors"
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    flip = data.draw(st.integers(1, 255))
    path.write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
    load(three, 2)
    path.write_bytes(whole)
    load(three, 3)


def test_a_newer_schema_is_refused_rather_than_passed_over(three):
    _edit(newest(three), schema=2)
    with pytest.raises(UserError, match="newer") as refusal:
        load_newest(three, "coarse")
    assert str(newest(three)) in str(refusal.value)


def test_other_files_in_the_folder_are_ignored(three):
    (three / "coarse" / "0000notes").mkdir()
    (three / "coarse" / ".00000004.tmp").mkdir()
    (three / "coarse" / "readme").write_text("x")
    load(three, 3)


@pytest.mark.parametrize("at", range(1, 4))
def test_a_write_that_dies_leaves_the_last_one(at, three, monkeypatch):
    """The process dies while the at-th file is written: what is left can't pass for a checkpoint."""
    written = []

    def dies(tensors, path):
        written.append(path)
        Path(path).write_bytes(b"half")
        if len(written) == at:
            os._exit(9)

    monkeypatch.setattr(checkpoints, "save_file", dies)
    child = os.fork()
    if child == 0:
        save(three, made(4), keep=3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert (three / "coarse" / ".00000004.tmp").is_dir(), "the kill was in the middle of the write"
    load(three, 3)
    monkeypatch.undo()
    save(three, made(4), keep=3)
    load(three, 4)
    assert not (three / "coarse" / ".00000004.tmp").exists()


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


@pytest.mark.parametrize("where", ["fsync", "mkdir", "save_file", "write_json", "rename"])
def test_a_full_disk_leaves_the_last_one(where, three, monkeypatch):
    def full(*args, **kwargs):
        raise FULL if where != "save_file" else SafetensorError("I/O error: No space left on device (os error 28)")

    place = {"fsync": os, "mkdir": Path, "rename": os}.get(where, checkpoints)
    with monkeypatch.context() as patch:
        patch.setattr(place, where, full)
        with pytest.raises(OSError) as error:
            save(three, made(4), keep=1)
    assert error.value.errno == errno.ENOSPC
    assert sorted(p.name for p in (three / "coarse").iterdir()) == ["00000001", "00000002", "00000003"]
    load(three, 3)


def test_other_faults_of_a_write_are_not_hidden(three, monkeypatch):
    def strange(tensors, path):
        raise SafetensorError("InvalidHeader")

    monkeypatch.setattr(checkpoints, "save_file", strange)
    with pytest.raises(SafetensorError):
        save(three, made(4), keep=1)


# --- files


@given(content=st.binary(max_size=100), before=st.none() | st.binary(max_size=100))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_the_old_one_or_the_new_one(content, before, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    if before is not None:
        path.write_bytes(before)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(FULL))
        with pytest.raises(OSError):
            files.write_bytes(path, content)
    assert (path.read_bytes() if path.exists() else None) == before
    files.write_bytes(path, content)
    assert path.read_bytes() == content and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", '"text"', '{"schema": "one"}', '{"schema": null}'])
def test_a_mapping_that_is_none_is_one_line(content, tmp_path):
    path = tmp_path / "status.json"
    path.write_text(content)
    with pytest.raises(UserError, match="status.json: damaged") as refusal:
        files.read_mapping(path, 1)
    assert "\n" not in str(refusal.value)


def test_missing_newer_and_undecodable_mappings(tmp_path):
    path = tmp_path / "status.json"
    with pytest.raises(UserError, match="status.json: missing"):
        files.read_mapping(path, 1)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="damaged"):
        files.read_mapping(path, 1)
    path.write_text('{"schema": 2}')
    with pytest.raises(UserError, match="schema 2 is newer"):
        files.read_mapping(path, 1)


# --- run folders


@pytest.fixture
def folder(tiny, tmp_path) -> RunFolder:
    return RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"]))


def test_a_new_run_folder(folder, tmp_path, tiny):
    names = {".owners", ".signature", "config.yaml", "environment.json", "status.json"}
    assert {p.name for p in folder.path.iterdir()} == names
    assert folder.state["state"] == "running" and folder.state["schema"] == 1
    assert not (tmp_path / "latest").exists()  # until there is something to sample from
    folder.saved()
    assert (tmp_path / "latest").resolve() == folder.path and not os.path.isabs(os.readlink(tmp_path / "latest"))
    facts = json.loads((folder.path / "environment.json").read_text())
    assert facts["packages"]["torch"] and facts["python"] and "commit" in facts
    read, cfg = RunFolder.read(tmp_path / "latest", finished=False)
    assert read.path == folder.path and cfg.name == "tiny"


def test_a_kill_while_a_run_folder_is_made_can_be_continued(folder, tmp_path, tiny):
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    folder.release()
    for names in (["status.json"], ["status.json", "environment.json"], ["status.json", "config.yaml"]):
        for name in names:  # not yet written when the kill came
            (folder.path / name).unlink()
        again = RunFolder.create(cfg)
        assert again.state["state"] == "running" and (folder.path / "config.yaml").exists()
        again.release()


def test_a_second_process_is_refused(folder, tiny, tmp_path):
    with pytest.raises(UserError, match="another process"):
        RunFolder.create(compose_config([*tiny, f"runs={tmp_path}"]))


def test_the_log_is_rewound_to_a_step(folder):
    rows = [{"stage": s, "step": i, "loss": 0.5} for s in ("coarse", "refine") for i in range(1, 5)]
    for row in rows:
        folder.append(row)
    with open(folder.curves, "a") as file:
        file.write('{"stage": "refine", "st')  # cut short by a kill
    folder.rewind("refine", 2)
    remaining = [json.loads(line) for line in folder.curves.read_text().splitlines()]
    assert remaining == [r for r in rows if r["stage"] == "coarse" or r["step"] <= 2]
    folder.append(rows[-1])
    assert folder.curves.read_text().endswith("\n")


def test_facts_of_a_status_stay(folder):
    folder.status("running", stage="coarse", step=7)
    folder.status("failed", error="full")
    output = folder.state
    assert (output["state"], output["error"], output["stage"], output["step"]) == ("failed", "full", "coarse", 7)
    assert (output["schema"], output["pid"], output["job"]) == (1, os.getpid(), os.environ.get("SLURM_JOB_ID"))
    folder.status("running")
    assert folder.state["error"] is None and folder.state["step"] == 7
