"""memory.precision=auto: a few steps timed both ways, one choice for a run, kept when it continues."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training import precision_choice, precision_trial
from ragaf_exp.training.precision_choice import Choice, chosen, for_sampling, record, recorded, settled

CPU = torch.device("cpu")


class Clock:
    """Time that only steps take: seconds of each by its number format, one after the other."""

    def __init__(self, **seconds: list[float]):
        self.left, self.now, self.steps = seconds, 0.0, []

    def __call__(self) -> float:
        return self.now

    def step(self, compute: Compute) -> None:
        self.steps.append(compute.precision)
        times = self.left[compute.precision]
        self.now += times.pop(0) if len(times) > 1 else times[0]


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Callable:
    """processor(bf16=True, no=[...], bf16_seconds=[...]) -> its clock; steps of a run take what it says."""

    def make(bf16: bool = True, no: float = 1.0, half: float = 1.0) -> Clock:
        clock = Clock(no=[no], bf16=[half])
        monkeypatch.setattr(precision_choice, "has_bf16", lambda device: bf16)
        monkeypatch.setattr("ragaf_exp.compute.device.has_bf16", lambda device: bf16)
        monkeypatch.setattr(precision_choice.timed, "__defaults__", (clock,))
        monkeypatch.setattr(precision_trial.Trial, "__call__", lambda self, compute: clock.step(compute))
        return clock

    return make


@pytest.fixture
def auto(tiny: list[str], tmp_path: Path) -> list[str]:
    return [*(w for w in tiny if not w.startswith("memory.precision")), "memory.precision=auto", f"runs={tmp_path}"]


def folder_at(path: Path) -> RunFolder:
    path.mkdir(exist_ok=True)
    return RunFolder(path)


# --- the choice


@pytest.mark.parametrize(("no", "half", "wanted"), [(1.0, 0.6, "bf16"), (0.75, 1.0, "no"), (1.0, 0.98, "no"), (1, 1, "no")])
def test_the_faster_format_is_chosen_and_near_a_tie_float32(no, half, wanted, processor):
    clock = processor(no=no, half=half)
    result = chosen(CPU, clock.step)
    assert result == Choice(wanted, "cpu", {"no": no, "bf16": half})
    assert ("float32" if wanted == "no" else "bf16") in str(result).partition(",")[0]


def test_formats_alternate_and_the_first_round_does_not_count():
    clock = Clock(no=[9, 1.0, 1.1], bf16=[1.1, 1.2, 1.05])
    assert precision_choice.timed(clock.step, clock) == pytest.approx({"no": 9.0, "bf16": 1.1})
    assert clock.steps == ["no", "bf16"], "one round of so many seconds is enough"
    clock = Clock(no=[4, 1.0, 1.1], bf16=[0.9, 1.05, 1.08])
    assert precision_choice.timed(clock.step, clock) == pytest.approx({"no": 1.0, "bf16": 0.9})
    assert clock.steps == ["no", "bf16", "bf16", "no", "no", "bf16"]
    clock = Clock(no=[4, 1.0], bf16=[0.9, 0.5])
    assert precision_choice.timed(clock.step, clock) == pytest.approx({"no": 1.0, "bf16": 0.5})
    assert len(clock.steps) == 4, "a clear answer needs no third round"


def test_without_the_instruction_nothing_is_timed(processor):
    clock = processor(bf16=False)
    assert chosen(CPU, clock.step) == Choice("no", "cpu") and not clock.steps


def test_a_cuda_device_computes_in_what_its_memory_was_planned_for(processor):
    clock = processor()
    assert chosen(torch.device("cuda"), clock.step) == Choice("bf16", "cuda") and not clock.steps
    processor(bf16=False)
    assert chosen(torch.device("cuda"), clock.step) == Choice("no", "cuda")


# --- a run


def test_a_run_records_its_choice_and_keeps_it_on_another_processor(auto, processor, caplog):
    cfg, clock = compose_config(auto), processor(no=1.0, half=0.5)
    folder = RunFolder.create(cfg)
    with caplog.at_level("INFO"):
        trainer = Training(cfg, folder).trainer(COARSE, {})
    assert trainer.compute.precision == "bf16" and len(clock.steps) == 4
    assert [line for line in caplog.messages if line.startswith("precision: bf16, as timed here: 0.50 s")]
    content = json.loads((folder.path / "environment.json").read_text())
    assert content["precision"] == {"precision": "bf16", "device": "cpu", "seconds": {"no": 1.0, "bf16": 0.5}}
    assert "packages" in content, "the rest is as it was"
    for other in (processor(no=0.1, half=1.0), processor(bf16=False)):
        assert Training(cfg, folder).trainer(COARSE, {}).compute.precision == "bf16"
        assert not other.steps
    folder.release()


@pytest.mark.long
def test_both_stages_and_the_evaluation_compute_in_it(auto, processor):
    from ragaf_exp.experiments.experiment import run

    clock, cfg = processor(no=1.0, half=0.5), compose_config(auto)
    folder = run(cfg)
    assert len(clock.steps) == 4, "timed once"
    assert folder.done() and load_run(folder, cfg)[1].compute.precision == "bf16"


def test_a_run_of_an_earlier_version_goes_on_as_it_began(tmp_path, processor):
    """Its environment.json names no format: it was what the processor had instructions for."""
    clock, folder = processor(no=0.5, half=1.0), folder_at(tmp_path / "old")
    folder.curves.write_text('{"stage": "coarse", "step": 2}\n')
    assert settled(Compute("cpu"), [folder], clock.step).precision == "bf16" and not clock.steps


def test_a_shared_stage_1_decides_for_the_members_that_start_from_it(tmp_path, processor):
    place, one, two = (folder_at(tmp_path / name) for name in ("stage1", "one", "two"))
    assert settled(Compute("cpu"), [place, one], processor(no=1.0, half=0.5).step).precision == "bf16"
    clock = processor(no=0.5, half=1.0)
    assert settled(Compute("cpu"), [place, two], clock.step).precision == "bf16" and not clock.steps
    assert [recorded(folder) for folder in (place, one, two)] == ["bf16"] * 3


def test_a_given_format_is_not_timed(auto, processor):
    clock, cfg = processor(half=0.1), compose_config([*auto, "memory.precision=no"])
    folder = RunFolder.create(cfg)
    assert Training(cfg, folder).trainer(COARSE, {}).compute.precision == "no"
    assert not clock.steps and recorded(folder) is None
    folder.release()


def test_a_timed_step_changes_nothing(auto):
    cfg = compose_config([*auto, "memory.precision=no"])
    folder = RunFolder.create(cfg)
    trainer = (experiment := Training(cfg, folder)).trainer(COARSE, {})
    before = {name: value.clone() for name, value in trainer.bare.state_dict().items()}
    random = torch.get_rng_state()
    step = precision_trial.Trial(trainer.bare, trainer.objective, trainer.codec, experiment.train_examples, trainer.plan,
                       trainer.stage_cfg, 0)  # fmt: skip
    for precision in ("no", "bf16"):
        step(Compute("cpu", precision))
    assert len(step._micro_batch.batch) == cfg.stage.batch, "as many items as a step of the run has: fewer rank otherwise"
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in trainer.bare.state_dict().items())
    assert all(p.grad is None for p in trainer.bare.parameters())
    folder.release()


# --- sampling


def test_sampling_computes_as_training_did_where_the_device_can(tmp_path, processor):
    processor()
    folder = folder_at(tmp_path / "run")
    record(folder, Choice("no", "cpu", {"no": 0.5, "bf16": 1.0}))
    assert for_sampling(folder, "cpu", "auto").precision == "no"
    assert for_sampling(folder, "cpu", "bf16").precision == "bf16"
    processor(bf16=False)
    other = folder_at(tmp_path / "other")
    record(other, Choice("bf16", "cpu"))
    assert for_sampling(other, "cpu", "auto").precision == "no", "emulated, it would be slower"


@pytest.mark.parametrize("content", ["[]", "{", '{"precision": "bf16"}', '{"precision": {"precision": "int4"}}', "{}"])
def test_a_strangers_environment_chooses_nothing(content, tmp_path, processor):
    processor()
    folder = folder_at(tmp_path / "run")
    (folder.path / "environment.json").write_text(content)
    assert for_sampling(folder, "cpu", "auto").precision == "bf16"


# --- several processes

PROCESS = """
import os, sys
from pathlib import Path
import torch
from ragaf_exp.distributed import launch
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training import precision_choice as timed
from ragaf_exp.compute.device import Compute

place = Path(sys.argv[1])
launch.init_process_group(place, "cpu")
rank, chosen = torch.distributed.get_rank(), []
fast, slow = {"no": 1.0, "bf16": 0.2}, {"no": 1.0, "bf16": 1.1}
for case, seconds in {"mean": (fast, slow), "lacking": (fast, fast), "late": (fast, fast)}.items():
    now = [0.0]
    def step(compute):
        now[0] += seconds[rank][compute.precision]
    timed.timed.__defaults__ = (lambda: now[0],)
    timed.has_bf16 = lambda device: case != "lacking" or rank == 0
    folder = RunFolder(place / (case if rank == 0 or case != "late" else "not there yet"))
    folder.is_main = rank == 0
    folder.path.mkdir(exist_ok=True)
    if case == "late" and rank == 0:  # a file system shows it to one process first
        timed.record(folder, timed.Choice("no", "cpu"))
    chosen.append(timed.settled(Compute("cpu"), [folder], step).precision)
(place / f"chosen{rank}").write_text(" ".join(chosen))
launch.barrier()
launch.destroy_process_group()
"""


@pytest.mark.long
def test_processes_agree(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([sys.executable, "-c", PROCESS, tmp_path], env={**shared, "RANK": rank, "LOCAL_RANK": rank})
               for rank in "01"]  # fmt: skip
    assert [process.wait(timeout=240) for process in started] == [0, 0]
    assert [(tmp_path / f"chosen{rank}").read_text() for rank in range(2)] == ["bf16 no no"] * 2
    assert recorded(RunFolder(tmp_path / "mean")) == "bf16"


# --- what a start says


@pytest.mark.long
def test_a_start_says_in_one_line_what_it_trains_on_what(tiny, tmp_path, caplog):
    from ragaf_exp.experiments.experiment import run

    with caplog.at_level("INFO"):
        run(compose_config([*tiny, f"runs={tmp_path}"]))
    result = [line for line in caplog.messages if "parameters trained" in line]
    assert len(result) == 2, "one a stage"
    numbers = [re.fullmatch(r"stage (\w+): 64 items, ([\d,]+) parameters trained, cpu, float32", line) for line in result]
    coarse, refine = (int(match[2].replace(",", "")) for match in numbers)
    assert [match[1] for match in numbers] == ["coarse", "refine"] and 10_000 < coarse < refine
