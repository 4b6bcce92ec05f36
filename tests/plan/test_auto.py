"""memory=auto: the largest profile and micro-batch that the plan says fit, and a run that goes on as it began."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.config.hydra_versions import VERSION_BASE
from ragaf_exp.config.validate import validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan import auto, available
from ragaf_exp.plan.__main__ import main
from ragaf_exp.plan.auto import select_profile
from ragaf_exp.plan.available import AvailableMemory, gpu_of_size
from ragaf_exp.plan.budget import GIB, Need
from ragaf_exp.plan.predict import SAMPLING, Peak, micro_batch
from ragaf_exp.run import command_line

AUTO = "memory=auto"
HELD = {"32gb": 16, "16gb": 6, "8gb": 4, "4gb": 1.5, "cpu": 0.5}  # GiB, and one more for every item at once
OF = {("StableUNet", "full"): "32gb", ("StableUNet", "frozen"): "16gb", ("StableUNet", "attention"): "8gb",
      ("ScratchUNet", "full"): "4gb", ("TinyUNet", "full"): "cpu"}  # fmt: skip


def planned(cfg, phases):
    held = HELD[OF[cfg.backbone._target_.rpartition(".")[2], cfg.memory.tune]]
    sizes = {p: 1 if p == SAMPLING else held + micro_batch(cfg) for p in phases}
    return [Need(Peak(p, 1, {"weights": int(size * GIB) - int(0.701 * GIB)})) for p, size in sizes.items()]


@pytest.fixture
def plain(monkeypatch):
    """Peaks by simple numbers, not by the planner."""
    monkeypatch.setattr(auto, "needs", planned)


@pytest.mark.parametrize(
    ("gib", "profile", "items"),
    [(80, "32gb", 16), (24.1, "32gb", 8), (20.1, "32gb", 4), (19.9, "16gb", 8), (10.1, "16gb", 4), (9.9, "8gb", 4),
     (5.1, "8gb", 1), (4.9, "4gb", 2), (2.6, "4gb", 1)],
)  # fmt: skip
def test_a_card_gets_the_largest_profile_that_fits_and_then_the_largest_micro_batch(plain, caplog, gib, profile, items):
    caplog.set_level(logging.INFO)
    words = select_profile([AUTO, "seed=3"], gpu_of_size(gib))
    cfg = compose_config(words)
    assert f"memory={profile}" in words and micro_batch(cfg) == items and cfg.seed == 3
    assert cfg.memory.budget == gib and cfg.stage.batch == 16
    (output,) = caplog.messages
    assert output.startswith(f"{AUTO}: {profile}, {items} items") and f"{gib:.2f} are free" in output
    assert ("32gb would take" in output) == (profile != "32gb"), "why not a larger one"


@pytest.mark.long
def test_what_the_command_line_gives_is_kept(plain):
    words = select_profile([AUTO, "stage.accumulate=8", "++memory.budget=20.5"], gpu_of_size(80))
    cfg = compose_config(words)
    assert "memory=32gb" in words and micro_batch(cfg) == 2 and cfg.memory.budget == 20.5
    assert "memory=16gb" in select_profile([AUTO, "memory.budget=12"], gpu_of_size(80)), "a budget is a smaller card"


def test_without_a_card_it_is_the_processor(plain, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(available, "_limits", lambda: [(2.6 * GIB, 8 * GIB)])  # what a job of SLURM's may have
    words = select_profile([AUTO, "memory.device=cpu"])
    cfg = compose_config(words)
    assert "memory=cpu" in words and micro_batch(cfg) == 2 and cfg.memory.budget == 2.6
    assert "no CUDA device" in caplog.messages[0] and "main memory" in caplog.messages[0]
    words = select_profile([AUTO], AvailableMemory(1.0, 12.0, "a full card"))
    assert "memory=cpu" in words and "memory.device=cpu" in words
    with pytest.raises(UserError, match="nothing fits the 0.40 GiB.*cpu would take 1.5") as refusal:
        select_profile([AUTO], AvailableMemory(0.4, 8, "main memory", cuda=False))
    assert "\n" not in str(refusal.value)


@pytest.mark.long
def test_a_run_goes_on_as_it_began_whatever_is_free_now(plain, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    free = [24.1]
    monkeypatch.setattr(auto, "query_available_memory", lambda device: AvailableMemory(free[0], 24.1, "a card"))
    words = [AUTO, f"runs={tmp_path}", "name=x"]
    began = compose_config(select_profile(words))
    place = tmp_path / "x" / config_hash(began)
    place.mkdir(parents=True)
    (place / "config.yaml").write_text(f"memory: {{budget: {began.memory.budget}}}\n")
    free[0] = 11.0
    assert config_hash(compose_config(select_profile(words))) == place.name and "continues" in caplog.messages[-1]
    assert "memory=16gb" in select_profile([*words, "seed=1"]), "another run looks at what is free"
    monkeypatch.setattr(auto, "query_available_memory", lambda device: AvailableMemory(11.0, 12.0, "a smaller card"))
    assert "memory=16gb" in select_profile(words), "of another machine"


def test_sweeps_and_several_processes_must_name_a_profile(refused, tiny, monkeypatch, tmp_path):
    from hydra import compose, initialize_config_dir

    from ragaf_exp.core.resources import CONF

    with initialize_config_dir(str(CONF), **VERSION_BASE), pytest.raises(UserError, match="name a profile"):
        validate(compose("config", [AUTO]))  # as a sweep's members are composed, on whatever machine
    monkeypatch.setenv("WORLD_SIZE", "2")
    refused(command_line, *tiny, AUTO, f"runs={tmp_path}", says=("each of several processes",))
    assert not list(tmp_path.iterdir())


def test_control_groups_limit_what_is_free(tmp_path):
    for name, most, now in (("", "max", 0), ("job", "3000", 1000), ("job/step", "max", 500)):
        folder = tmp_path / "cgroup" / name
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{now}\n")
    own = tmp_path / "own"
    own.write_text("0::/job/step\n")
    assert available._limits(tmp_path / "cgroup", own) == [(2000, 3000)]
    assert available._limits(tmp_path / "cgroup", tmp_path / "none") == []


@pytest.mark.long
def test_the_planner_takes_a_card_that_is_not_here(cli, refused, plain, tiny, tmp_path):
    """The real planner, of the small profile alone."""
    out = tmp_path / "plan.json"
    small = [*tiny, "stage.run=[coarse]", "stage.accumulate=1", "stage.batch=1", "eval.batch=1"]
    status, output, err = cli(main, *small, AUTO, f"out={out}")
    plan = json.loads(out.read_text())
    assert status == 0 and plan["fits"] is True and f"fits into {plan['budget_gib']}" in output, (output, err)
    status, output, _ = cli(main, *small, "card=0.5", f"out={out}")
    assert status == 0 and "exceeds 0.5 GiB" in output
    for size in ("much", "0", "nan"):
        refused(main, AUTO, f"card={size}", says=("card=", "24"))


def test_a_run_by_the_command_line_is_the_chosen_profiles(plain, cli, tiny, tmp_path, monkeypatch):
    from ragaf_exp import run

    recorded = []
    monkeypatch.setattr(run, "start", recorded.append)
    status, _, err = cli(command_line, *tiny, AUTO, f"runs={tmp_path}")
    assert status == 0 and len(recorded) == 1, err
    (cfg,) = recorded
    assert cfg == compose_config([*tiny, f"runs={tmp_path}", "memory=cpu", f"memory.budget={cfg.memory.budget}"])
    assert Path(cfg.runs) == tmp_path and cfg.memory.budget > 0
