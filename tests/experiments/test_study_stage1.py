"""Members of a study share stage 1: trained once, to the bytes that each would have trained, also if one is killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from run_files import rows, tensors

from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.config.schema import COARSE, Loss
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments import shared_stage
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.report.compare.runs import sweep_members
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.trainer import Trainer

pytestmark = pytest.mark.process

UNSEEN = ["regions.max_regions=2", "graph=none", "ragaf.layers=2", "fusion=cosine", "injection=bottleneck",
          "sampler.steps=3", "eval.grid=1", "stage.refine.steps=9", "memory.tune=frozen", "study.member=x",
          "memory.budget=99", "memory.force=true"]  # fmt: skip
UNSEEN += [f"loss.{field.name}=0.37" for field in dataclasses.fields(Loss) if field.name not in shared_stage.LOSSES]
SEEN = ["seed=1", "data.train=63", "hint.width=8", "text.layers=2", "backbone.head_width=8",
        "diffusion=v", "task.caption_dropout=0.3", "optim.ema=0.9", "stage.batch=8", "stage.coarse.lr=0.001",
        "stage.coarse.steps=9", "loss.diffusion=0.5", "augment=drawing"]  # fmt: skip


def two_steps(words: list[str], place: Path) -> dict[str, bytes]:
    """Stage 1's weights after its first two steps."""
    cfg = compose_config([*words, f"runs={place}"])
    experiment = Training(cfg, RunFolder.create(cfg))
    trainer = experiment.trainer(COARSE, {})
    for step, indices in zip(range(2), trainer._order(experiment.train_examples, 0), strict=False):
        trainer.step(step, collate([experiment.train_examples.at(step, i) for i in indices]))
    return {name: value.numpy().tobytes() for name, value in trainer.bare.state_dict().items()}


@pytest.mark.parametrize("change", UNSEEN)
def test_what_stage_1_does_not_see_leaves_it_shared(change, tiny):
    assert shared_stage.folder_of(compose_config([*tiny, change])).path == shared_stage.folder_of(compose_config(tiny)).path


def test_it_is_to_the_byte_the_same_whatever_it_does_not_see(tiny, tmp_path):
    assert two_steps([*tiny, *UNSEEN], tmp_path) == two_steps(tiny, tmp_path)


@pytest.mark.parametrize("change", SEEN)
def test_what_stage_1_sees_makes_another(change, tiny):
    assert shared_stage.folder_of(compose_config([*tiny, change])).path != shared_stage.folder_of(compose_config(tiny)).path


def test_a_curriculum_orders_items_by_regions(tiny):
    words = [*tiny, "stage.curriculum=0.5"]
    assert (
        shared_stage.folder_of(compose_config([*words, "regions.max_regions=2"])).path
        != shared_stage.folder_of(compose_config(words)).path
    )
    assert (
        shared_stage.folder_of(compose_config([*words, "graph=none"])).path
        == shared_stage.folder_of(compose_config(words)).path
    )


def test_an_unknown_group_of_the_config_changes_the_shared_folder(tiny):
    cfg = compose_config(tiny)
    before = shared_stage.folder_of(cfg).path
    OmegaConf.update(cfg, "something_new", {"key": 1}, force_add=True)
    assert shared_stage.folder_of(cfg).path != before


def test_sharing_is_no_part_of_a_config_s_hash(tiny):
    assert config_hash(compose_config([*tiny, "study.share=true", "study.member=full"])) == config_hash(
        compose_config(tiny)
    )


# --- two members at the same time, and a kill


def start(words: list[str], errors: Path) -> subprocess.Popen:
    with open(errors, "w") as file:
        return subprocess.Popen([sys.executable, "-m", "ragaf_exp.run", *words], stdout=subprocess.DEVNULL, stderr=file)


@pytest.fixture(scope="module")
def story(tiny, tmp_path_factory) -> dict:
    """One member is killed in stage 1 while another waits for it; the first is then started again."""
    place = tmp_path_factory.mktemp("study")
    words = [*tiny, "study.share=true", f"runs={place}"]
    events, steps = {"waited": False}, []
    shared = shared_stage.folder_of(compose_config(words))
    first = start(words, place / "first.txt")
    while not rows(shared.path):
        assert first.poll() is None, (place / "first.txt").read_text()
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)  # it holds stage 1 until the other was seen to wait
    step = Trainer.step

    def waits(message, *about):
        events["waited"] = message.endswith("waiting")
        first.kill()
        assert first.wait() == -signal.SIGKILL

    def counted(self, number, batch):
        steps.append((self.plan.stage, number))
        return step(self, number, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_stage.log, "info", waits)
        events["other"] = run(compose_config([*words, "fusion=cosine", "study.member=other"])).path
        patch.setattr(Trainer, "step", counted)
        events["again"] = run(compose_config([*words, "study.member=full"])).path
    return events | {"place": place, "shared": shared.path, "steps": steps}


def test_a_waiting_member_takes_over_from_a_killed_one(story):
    assert story["waited"]
    steps = [row["step"] for row in rows(story["shared"]) if "loss" in row]
    assert steps == sorted(set(steps)), "no step was logged twice"


def test_it_is_to_the_byte_what_each_would_have_trained(story, finished):
    alone, again, other = (tensors(story[k]) if k else tensors(finished) for k in (None, "again", "other"))
    last = max(name for name in alone if "/coarse/" in name).rpartition("/")[0]
    for name in (n for n in alone if n.startswith(last)):
        assert again[name] == alone[name] and other[name] == alone[name], name
    refine = {name: content for name, content in alone.items() if "/refine/" in name}
    assert refine and {n: c for n, c in again.items() if "/refine/" in n} == refine
    assert {n: c for n, c in other.items() if "/refine/" in n} != refine


def test_members_have_its_log_and_stand_on_their_own(story, finished):
    assert rows(story["again"]) == rows(finished)
    shared = [row for row in rows(story["other"]) if row["stage"] == COARSE]
    assert shared == [row for row in rows(finished) if row["stage"] == COARSE]
    for member in (story["again"], story["other"]):
        assert load_newest(member / "checkpoints", COARSE).step == 8
        names = [{path.name for path in (run / "samples").glob("*.png")} for run in (finished, member)]
        assert names[0] == names[1]
        assert not any(path.is_symlink() for path in member.rglob("*"))


def test_it_is_trained_once(story):
    assert story["steps"] and all(stage != COARSE for stage, _ in story["steps"])


def test_a_report_of_the_study_passes_the_shared_stage_by(story):
    assert all("stage1" not in p.parts[-2:] for p in sweep_members(story["place"] / "tiny"))


def test_a_file_system_without_links_gets_copies(monkeypatch, tmp_path):
    def refuses(*args):
        raise OSError("no links here")

    (tmp_path / "a").write_text("content")
    monkeypatch.setattr(os, "link", refuses)
    shared_stage.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_text() == "content" and (tmp_path / "b").stat().st_ino != (tmp_path / "a").stat().st_ino
