"""The planner: predicted peaks against measured ones, what fits, what would make it fit, and refused runs."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_sd import save_sd
from torch.profiler import ProfilerActivity, profile

from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.models.loading.sources import share_identical_weights
from ragaf_exp.plan import budget, guard
from ragaf_exp.plan.__main__ import left_out, main
from ragaf_exp.plan.budget import GIB, Need
from ragaf_exp.plan.dry_run import EARLIER, REGIONS, DryRun
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.plan.predict import SAMPLING, VALIDATION, Peak, phases_of, predict
from ragaf_exp.plan.tracker import BLOCK, Tracker
from ragaf_exp.run import command_line
from ragaf_exp.training.trainer import Trainer


def storages(*things) -> int:
    """Bytes of everything that modules and tensors hold, each storage once."""
    tensors = [t for x in things for t in ([*x.parameters(), *x.buffers()] if hasattr(x, "parameters") else [x])]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


def measured(cfg, stage: str) -> int:
    """Bytes at the peak of a real second step on this processor, as PyTorch's allocator reports them."""
    rehearsal = DryRun(cfg, Compute("cpu", "no"))
    coarse = make_model(rehearsal.parts, COARSE).requires_grad_(False).eval() if stage == REFINE else None
    trainer = rehearsal.trainer(stage, {COARSE: coarse} if coarse else {})
    batch = largest_batch(cfg.stage.batch, cfg.data.size, cfg.regions.max_regions)
    last = trainer.plan.steps - 1
    trainer.step(last, batch)
    trainer.metrics_logger.recent.clear()
    moments = [v for s in trainer.update.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    fields = [v for v in vars(batch).values() if isinstance(v, torch.Tensor)]
    held = storages(trainer.bare, trainer.ema.model, *([coarse] if coarse else []), *moments, *fields)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        trainer.step(last, batch)
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return held + peak


@pytest.mark.long
@pytest.mark.parametrize(
    ("stage", "more"),
    [(COARSE, ("backbone.widths=[32,64,64]", "codec.patch=2")), (COARSE, ("stage.coarse.scale=2", "data.size=64")),
     (REFINE, ("stage.accumulate=2",)), (REFINE, ("memory.tune=frozen", "memory.offload=true"))],
)  # fmt: skip
def test_a_predicted_peak_is_the_measured_one_within_ten_per_cent(tiny, stage, more):
    cfg = compose_config([*tiny, *more])
    result = predict(cfg, "no", (stage,))[0].bytes
    assert result == pytest.approx(measured(cfg, stage), rel=0.1)


@pytest.mark.long
@pytest.mark.parametrize("run", ["[coarse]", "[coarse,refine]"])
def test_a_smaller_stage_1_is_planned_smaller_in_every_phase(tiny, run):
    def peaks(scale):
        cfg = compose_config([*tiny, f"stage.run={run}", f"stage.coarse.scale={scale}"])
        return {peak.phase: peak.parts["activations"] for peak in predict(cfg, "no")}

    whole, half = peaks(1), peaks(2)
    assert whole.keys() == half.keys() and half[COARSE] < 0.5 * whole[COARSE]
    if REFINE in run:
        assert half[REFINE] == whole[REFINE]
    else:
        assert half[VALIDATION] < whole[VALIDATION]


def test_the_tracker_follows_storages_from_birth_to_death():
    with torch.device("meta"), Tracker() as tracker:
        with tracker.labelling("held"):
            x = torch.zeros(1000, requires_grad=True)
        y = x.exp() * 2  # the exponential is kept for the backward pass
        view = y.view(10, 100)
        large = torch.zeros(10_000)
        del large
        assert tracker.live["held"] == -(-4000 // BLOCK) * BLOCK and tracker.live["workspace"] == 2 * tracker.live["held"]
        assert tracker.peak == 3 * tracker.live["held"] + -(-40_000 // BLOCK) * BLOCK
        assert float(y.detach().sum()) == 1 and torch.bincount(x.long(), minlength=7).shape == (7,)
        del y, view
        assert tracker.live["workspace"] == 0
    with Tracker("cpu") as tracker:
        remaining = torch.ones(3).cumsum(0)
    assert tracker.live["workspace"] == BLOCK and remaining.tolist() == [1, 2, 3]


def parts(words, phase: str = COARSE) -> dict[str, int]:
    return predict(compose_config(words), "no", (phase,))[0].parts


@pytest.mark.long
def test_what_a_plan_depends_on(tiny):
    base = parts(tiny)
    words = [*tiny, "backbone.widths=[32,64]", "stage.batch=16", "stage.accumulate=2"]
    other = predict(compose_config(words), "no", (COARSE,))[0]
    assert other.parts["weights"] > base["weights"] and other.parts["activations"] > 1.5 * base["activations"]
    assert other.micro_batch == 8 and other.parts["gradients"] > 0, "they stay while the second half runs"
    assert base["optimizer"] < 1.95 * base["weights"], "Muon has one moment where AdamW has two"
    assert parts([*tiny, "optim=adamw"])["optimizer"] == pytest.approx(2 * base["weights"], rel=0.1)
    assert Need(Peak("coarse", 1, {"weights": GIB})).margin < GIB


@pytest.mark.long
def test_memory_options_reduce_the_predicted_peak(tiny):
    large = [*tiny, "stage.batch=16", "hint.width=32"]
    before = parts(large)
    after = parts([*large, "memory.ema=cpu", "memory.optimizer=adamw8bit", "memory.checkpointing=true"])
    assert "average" not in after and after["batch"] == before["batch"] and after["weights"] == before["weights"]
    assert after["optimizer"] < 0.5 * before["optimizer"] and after["activations"] < 0.7 * before["activations"]
    before = parts(large, REFINE)
    after = parts([*large, "memory.ema=off", "memory.tune=frozen", "memory.offload=true"], REFINE)
    assert "average" not in after and before[EARLIER] > 10 * after.get(EARLIER, 0)
    assert after["optimizer"] < 0.7 * before["optimizer"]


@pytest.mark.long
def test_all_that_a_run_does_is_planned(tiny):
    assert phases_of(compose_config(tiny)) == (COARSE, REFINE, REGIONS, VALIDATION, SAMPLING)
    assert phases_of(compose_config([*tiny, "stage.refine.region_steps=0"])) == (COARSE, REFINE, VALIDATION, SAMPLING)
    (regions,) = predict(compose_config([*tiny, "stage.refine.region_batch=64", "stage.accumulate=2"]), "no", (REGIONS,))
    assert regions.phase == REGIONS and regions.micro_batch == 32 and regions.parts["activations"] > 0


@pytest.mark.long
def test_a_validation_needs_what_training_holds_and_what_sampling_takes(tiny):
    words = [*tiny, "eval.batch=3", "stage.refine.region_steps=0"]
    training, validation, sampling = predict(compose_config(words), "no", (REFINE, VALIDATION, SAMPLING))
    assert validation.phase == VALIDATION and validation.micro_batch == 3
    for kind in ("optimizer", "average", "weights", EARLIER):
        assert validation.parts[kind] == training.parts[kind], kind
    assert validation.bytes > sampling.bytes and "gradients" not in validation.parts
    (rested,) = predict(compose_config([*words, "memory.offload=true"]), "no", (VALIDATION,))
    assert rested.parts == validation.parts, "all networks are awake"
    more = [*words, "memory.compile=true", "cluster.tasks=2", "eval.metrics=[fid]"]
    assert len(left_out(compose_config(more))) == 3 and left_out(compose_config(words)) == []


@pytest.mark.long
def test_the_command_line_says_what_fits_and_what_would(cli, tiny, tmp_path, monkeypatch):
    out = tmp_path / "plan.json"
    words = [*tiny, "stage.run=[coarse]", "eval.batch=1"]
    status, output, _ = cli(main, *words, "memory.budget=9", f"out={out}")
    plan = json.loads(out.read_text())
    assert status == 0 and plan["fits"] is True and plan["predicted"] is True and plan["savers"] == []
    assert "fits into 9.0 GiB" in output and all(phase in output for phase in (COARSE, SAMPLING))
    for row in plan["phases"]:
        assert row["total_gib"] == pytest.approx(sum(row["parts_gib"].values()) + row["margin_gib"], abs=2e-3)
    monkeypatch.setattr(budget, "needs", needing(lambda cfg, phase: (4 if phase == SAMPLING else 1) * GIB))
    status, output, _ = cli(main, *words, "stage.run=[coarse,refine]", "memory.budget=3", f"out={out}")
    assert status == 0 and json.loads(out.read_text())["fits"] is False and "exceeds" in output
    assert "no known option" in output and "still too much" in output, "no saver helps sampling here"


def needing(sizes):
    """A stand-in for `needs`: bytes by config and phase."""
    return lambda cfg, phases=None: [Need(Peak(p, 1, {"weights": sizes(cfg, p)})) for p in phases or phases_of(cfg)]


def test_advice_looks_at_every_phase(tiny, monkeypatch):
    def sizes(cfg, phase):
        draws = phase in (VALIDATION, SAMPLING)
        return GIB if (cfg.eval.batch < 4 if draws else cfg.memory.checkpointing) else 4 * GIB

    monkeypatch.setattr(budget, "needs", needing(sizes))
    cfg = compose_config([*tiny, "stage.refine.region_steps=0"])
    result = budget.needs(cfg)
    (both,) = budget.advice(cfg, 3 * GIB, result)  # training and sampling exceed: neither saver is enough alone
    assert both.fits and "memory.checkpointing=true" in both.override and "eval.batch=2" in both.override
    (nothing,) = budget.advice(cfg, GIB, result)
    assert not nothing.fits and nothing.total > GIB
    assert "no saver makes it fit" in guard.refusal(cfg, result, 1.0)
    monkeypatch.setattr(budget, "needs", needing(lambda cfg, phase: (1 if cfg.memory.checkpointing else 4) * GIB))
    cfg = compose_config([*tiny, "stage.run=[coarse]", "eval.batch=1"])
    result = [Need(Peak(COARSE, 1, {"weights": 4 * GIB})), Need(Peak(SAMPLING, 1, {"weights": GIB}))]
    (alone,) = budget.advice(cfg, 3 * GIB, result)
    assert alone.fits and alone.override == "memory.checkpointing=true"


def test_a_run_that_will_not_fit_is_refused_before_it_trains(refused, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "fit", lambda *_: pytest.fail("it trains"))
    words = [*tiny, f"runs={tmp_path}", "stage.run=[coarse]", "eval.batch=1", "memory.budget=0.5"]
    for module in (budget, guard):
        monkeypatch.setattr(module, "needs", needing(lambda cfg, phase: GIB))
    refused(command_line, *words, says=("memory: ", "predicted to take", "of 0.50", "memory.force=true"))
    forced = compose_config([*words, "memory.force=true"])
    assert config_hash(forced) == config_hash(compose_config([w for w in words if not w.startswith("memory.budget")]))
    monkeypatch.setattr(guard, "needs", lambda *_: pytest.fail("it plans"))
    guard.check(forced)
    guard.check(compose_config([*tiny, "memory.budget=0"]))


def test_weights_that_stage_2_left_as_they_were_are_held_once():
    one, two = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    two.load_state_dict({**two.state_dict(), "weight": one.weight})
    share_identical_weights(one, two)
    assert one.weight.data_ptr() == two.weight.data_ptr() and one.bias.data_ptr() != two.bias.data_ptr()


def test_a_wrong_budget_is_refused():
    with pytest.raises(UserError, match="memory.budget"):
        compose_config(["memory.budget=-1"])


def test_missing_weights_are_reported_before_a_plan_is_made(refused, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(guard, "check", lambda *_: pytest.fail("it plans"))
    folder = save_sd(tmp_path / "sd")
    (weights,) = (folder / "unet").glob("*.safetensors")
    weights.unlink()
    mine = [word for word in tiny if word.partition(".")[0] not in ("backbone", "text")]
    profile = [*mine, "memory=16gb", "data.size=64", "codec.weights=none", f"runs={tmp_path}"]
    refused(command_line, *profile, says=("source=: missing", "weights=none"))
    refused(command_line, *profile, f"backbone.source={folder}", says=("backbone.source=", "unet holds no weights"))
    cfg = compose_config([*profile, f"backbone.source={folder}", "memory.device=cpu"])
    assert predict(cfg, "no", (SAMPLING,))[0].bytes > 0, "a plan needs a config.json alone"


@pytest.mark.long
def test_tokens_are_planned_as_the_batch_that_they_allow(tiny):
    """The square of 32x32 pixels has 16 tokens of 8x8; the steps of the region path keep their batch."""
    cfg, tokens = compose_config([*tiny, "stage.batch=6"]), compose_config([*tiny, "stage.tokens=100"])
    assert predict(tokens, "no", (COARSE, REGIONS)) == predict(cfg, "no", (COARSE, REGIONS))
    half = compose_config([*tiny, "stage.tokens=100", "stage.accumulate=2"])
    assert predict(half, "no", (COARSE,))[0].micro_batch == 3
