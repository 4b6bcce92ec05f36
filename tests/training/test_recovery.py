"""Out of memory at any phase: redone in smaller pieces, with the same losses; nothing half-updated, and remembered."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ragaf_exp.compute.out_of_memory import Chunks, is_out_of_memory
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import OutOfMemory
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training import clipping
from ragaf_exp.training.oom_retry import OomRetry
from ragaf_exp.training.optimizer import inner

pytestmark = pytest.mark.process

SAYS = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 4.00 GiB of which ..."


@pytest.fixture
def experiment(tiny, tmp_path) -> Training:
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    return Training(cfg, RunFolder.create(cfg))


@pytest.fixture
def batch(experiment):
    return collate([experiment.train_examples[i] for i in range(4)])


def fresh(experiment: Training, stage: str):
    earlier = {} if stage == "coarse" else {"coarse": experiment.trainer("coarse", {}).bare}
    return experiment.trainer(stage, earlier)


class FailsBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise torch.OutOfMemoryError(SAYS)


def memory_for(limit: int, trainer, phase: str, monkeypatch) -> list[int]:
    """From now on `phase` of the trainer runs out of memory with more than `limit` items; returns the sizes tried."""
    tried = []

    def over(items: int) -> bool:
        tried.append(items)
        return items > limit

    def fail() -> None:
        raise torch.OutOfMemoryError(SAYS)

    encode, objective = trainer.codec.encode, trainer.objective.forward
    if phase == "encode":
        monkeypatch.setattr(trainer.codec, "encode", lambda x: fail() if over(len(x)) else encode(x))
    if phase in ("forward", "backward"):

        def forward(model, batch, *args, **kwargs):
            if phase == "forward" and over(len(batch)):
                fail()
            losses = objective(model, batch, *args, **kwargs)
            if phase == "backward" and over(len(batch)):
                losses["loss"] = FailsBackward.apply(losses["loss"])
            return losses

        monkeypatch.setattr(trainer.objective, "forward", forward)
    return tried


@pytest.mark.parametrize("stage", ["coarse", "refine"])
@pytest.mark.parametrize("phase", ["encode", "forward", "backward"])
def test_a_step_that_runs_out_of_memory_is_redone_with_half_the_micro_batch(
    stage, phase, experiment, batch, monkeypatch, caplog
):
    undisturbed, trainer = fresh(experiment, stage), fresh(experiment, stage)
    last = trainer.plan.steps - 1
    undisturbed.step(last, batch)
    tried = memory_for(1, trainer, phase, monkeypatch)
    trainer.step(last, batch)
    assert tried[0] == 4 and 2 in tried and tried[-4:] == [1, 1, 1, 1], "4, then 2, then 1 at a time"
    for name, value in undisturbed.metrics_logger.recent[0].items():
        torch.testing.assert_close(trainer.metrics_logger.recent[0][name], value, rtol=1e-4, atol=1e-6)
    same(trainer, undisturbed)
    assert caplog.text.count("repeating it with") == 2 and "accumulated 4 times" in caplog.text
    before = len(tried)
    trainer.step(last, batch)
    assert tried[before:] == [1, 1, 1, 1], "and is kept for later steps"


def same(trainer, other) -> None:
    """Compare moments, which are gradients: AdamW's first step is a sign, Muon's a rotation."""
    held = [(t.bare, t.update.optimizer.state) for t in (trainer, other)]
    moments = [{n: state[p].get("exp_avg", state[p].get("momentum_buffer")) for n, p in net.named_parameters()
                if state.get(p)} for net, state in held]  # fmt: skip
    scale = max(float(m.abs().max()) for m in moments[1].values())
    assert moments[0].keys() == moments[1].keys() and len(moments[0]) > 50
    for name, moment in moments[1].items():
        torch.testing.assert_close(moments[0][name], moment, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("phase", ["clip", "optimizer"])
def test_an_update_that_did_not_begin_is_redone(phase, experiment, batch, monkeypatch):
    undisturbed, trainer = fresh(experiment, "coarse"), fresh(experiment, "coarse")
    undisturbed.step(0, batch)
    owner, name = (clipping, "get_total_norm") if phase == "clip" else (trainer.update.optimizer, "step")
    call, failed = getattr(owner, name), []

    def once(*args):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError(SAYS)
        return call(*args)

    monkeypatch.setattr(owner, name, once)
    trainer.step(0, batch)
    assert failed and trainer.oom_retry.pieces(0, "whole") == 2
    same(trainer, undisturbed)


def test_a_first_update_that_ran_out_while_moments_were_made_is_redone(experiment, batch, monkeypatch):
    """AdamW then leaves its first parameter with a step and no moments."""
    undisturbed, trainer = fresh(experiment, "coarse"), fresh(experiment, "coarse")
    for each in (undisturbed, trainer):
        each.step(0, batch)
    part = inner(trainer.update.optimizer).parts[0]
    parameter, call, failed = next(iter(part.state)), part.step, []
    remaining = {key: value.clone() for key, value in part.state.pop(parameter).items()}

    def once(*args):
        if not failed:
            failed.append(True)
            part.state[parameter]["step"] = torch.tensor(0.0)
            raise torch.OutOfMemoryError(SAYS)
        assert not part.state[parameter], "made again, not continued"
        part.state[parameter].update(remaining)
        return call(*args)

    monkeypatch.setattr(part, "step", once)
    for each in (undisturbed, trainer):
        each.step(1, batch)
    assert failed
    same(trainer, undisturbed)


def test_where_each_piece_is_a_step_none_is_redone_in_pieces(tmp_path):
    folder = RunFolder.create(compose_config([f"runs={tmp_path}"]))
    recovery = OomRetry(folder, "coarse", 1, 1, lambda: [], in_pieces=False)

    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError(SAYS)

    with pytest.raises(OutOfMemory, match="memory.step_in_backward=true can't accumulate gradients") as refusal:
        recovery.run(0, "whole", 4, attempt)
    assert recovery.oom_events == [] and "\n" not in str(refusal.value)


@pytest.mark.parametrize("phase", ["optimizer", "average"])
def test_a_half_done_update_stops_the_run_at_its_checkpoint(phase, experiment, batch, monkeypatch):
    trainer = fresh(experiment, "coarse")
    owner, name = (trainer.update.optimizer, "step") if phase == "optimizer" else (trainer.ema, "update")
    model = trainer.bare if phase == "optimizer" else trainer.ema.model

    def halfway(*args):
        with torch.no_grad():
            next(model.parameters()).add_(1)
        raise torch.OutOfMemoryError(SAYS)

    monkeypatch.setattr(owner, name, halfway)
    with pytest.raises(OutOfMemory, match="in the middle of an update") as refusal:
        trainer.step(0, batch)
    assert "\n" not in str(refusal.value) and "checkpoint" in str(refusal.value)


def test_an_average_that_did_not_begin_is_made_once_more(experiment, batch, monkeypatch):
    trainer = fresh(experiment, "coarse")
    update, failed = trainer.ema.update, []

    def once(*args):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError(SAYS)
        update(*args)

    monkeypatch.setattr(trainer.ema, "update", once)
    trainer.step(0, batch)
    pairs = zip(trainer.bare.parameters(), trainer.ema.model.parameters(), strict=True)
    assert any(p._version for p in trainer.ema.model.parameters()) and any(not torch.equal(p, e) for p, e in pairs)
    assert trainer.oom_retry.oom_events == [], "smaller micro-batches would not have helped"


def test_one_item_that_does_not_fit_ends_the_run(experiment, batch, monkeypatch):
    trainer = fresh(experiment, "coarse")
    tried = memory_for(0, trainer, "forward", monkeypatch)
    before = [p.detach().clone() for p in trainer.bare.parameters()]
    with pytest.raises(OutOfMemory, match="step 3: out of memory with one item at a time") as refusal:
        trainer.step(2, batch)
    assert tried == [4, 2, 1] and "\n" not in str(refusal.value) and "CUDA out of memory" in str(refusal.value)
    assert all(torch.equal(p, b) for p, b in zip(trainer.bare.parameters(), before, strict=True))


def test_a_resumed_run_uses_the_recorded_micro_batches(tmp_path):
    folder = RunFolder.create(compose_config([f"runs={tmp_path}"]))
    recovery = OomRetry(folder, "coarse", 2, 1, lambda: [])

    def attempt(size: int) -> int:
        if size > 3:
            raise torch.OutOfMemoryError(SAYS)
        return size

    assert recovery.run(7, "whole", 16, attempt) == 2, "8, then 4, then 2"
    resumed, other = OomRetry(folder, "coarse", 2, 1, lambda: []), OomRetry(folder, "refine", 2, 1, lambda: [])
    for again in (resumed, other):
        again.restore()
    assert resumed.pieces(7, "whole") == resumed.pieces(99, "whole") == 8
    assert resumed.pieces(6, "whole") == 2, "earlier steps are cut as they were"
    assert resumed.pieces(9, "regions") == other.pieces(9, "whole") == 2
    state = json.loads((folder.path / "status.json").read_text())
    assert [r["accumulate"] for r in state["retreats"]] == [4, 8] and "CUDA out of memory" in state["retreats"][0]["reason"]


def test_other_errors_and_several_processes_are_not_redone(tmp_path):
    folder = RunFolder.create(compose_config([f"runs={tmp_path}"]))

    def attempt(error: Exception) -> None:
        raise error

    with pytest.raises(RuntimeError, match="shapes"):
        OomRetry(folder, "coarse", 1, 1, lambda: []).run(0, "whole", 4, lambda size: attempt(RuntimeError("shapes")))
    with pytest.raises(OutOfMemory, match="2 processes"):
        oom = torch.OutOfMemoryError(SAYS)
        OomRetry(folder, "coarse", 1, 2, lambda: []).run(0, "whole", 4, lambda size: attempt(oom))
    host = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried")
    assert is_out_of_memory(host) and not is_out_of_memory(ValueError("not enough memory"))


# --- sampling and validation


def test_sampling_goes_on_in_smaller_chunks(finished, monkeypatch, caplog):
    folder, cfg = RunFolder.read(finished)
    parts, pipeline = load_run(folder, cfg)
    batch = collate([parts.examples("test")[i] for i in range(5)])
    whole = pipeline(batch).to_images()
    for owner, name in ((pipeline.sampler, "sample"), (pipeline.codec, "decode")):
        parts.chunks.size, call, tried = None, getattr(owner, name), []

        def limited(first, *args, call=call, tried=tried, name=name, **options):
            items = len(first if name == "decode" else args[0])
            tried.append(items)
            if items > 2:
                raise torch.OutOfMemoryError(SAYS)
            return call(first, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, limited)
            pieces = pipeline(batch).to_images()
        assert parts.chunks.size == 2 and tried[:3] == [5, 3, 2] and tried[-1] == 1
        for name, images in whole.images.items():
            assert abs(images.astype(int) - pieces.images[name]).max() <= 1
        assert pieces.region_text.shape == whole.region_text.shape
        assert abs(pieces.region_text - whole.region_text).max() < 1e-4
    assert "continuing with 3" in caplog.text


def test_chunks_give_up_at_one_item():
    def call(rows: slice) -> None:
        raise torch.OutOfMemoryError(SAYS)

    with pytest.raises(OutOfMemory, match="one item at a time"):
        Chunks().over(4, call)


def test_a_run_out_of_memory_in_every_phase_finishes(tiny, tmp_path, monkeypatch):
    """Steps, validation and evaluation, all with memory for three items."""
    from ragaf_exp.models.model import Model

    denoise = Model.denoise

    def limited(self, x_t, *args):
        if len(x_t) > 3:
            raise torch.OutOfMemoryError(SAYS)
        return denoise(self, x_t, *args)

    monkeypatch.setattr(Model, "denoise", limited)
    short = ["stage.coarse.steps=2", "stage.refine.steps=2", "stage.refine.region_steps=1", "stage.validate_every=2"]
    folder = run(compose_config([*tiny, *short, f"runs={tmp_path}"]))
    assert folder.state["state"] == "done" and Path(folder.report).exists()
    assert {(r["stage"], r["kind"], r["accumulate"]) for r in folder.state["retreats"]} == {
        ("coarse", "whole", 2), ("refine", "whole", 2)
    }  # fmt: skip
