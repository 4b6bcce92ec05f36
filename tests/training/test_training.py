"""The trainer and its parts: schedule, averages, accumulation, losses, condition usage, and a loss that diverges."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.compute.device import Compute, pick_precision
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Loss, Optim
from ragaf_exp.core.errors import Diverged, UserError
from ragaf_exp.core.randomness import generator
from ragaf_exp.data.loader import batch_order, collate
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.run import command_line
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.tasks.base import REGIONS, Condition
from ragaf_exp.tasks.sketch_text import SketchText
from ragaf_exp.training.condition_usage import condition_usage, shuffled
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.optimizer import learning_rate, make_optimizer, optimizer_state
from ragaf_exp.training.schedule import StageSchedule
from ragaf_exp.training.step_noise import sample_step_noise, x_start


def weights(folder: Path) -> dict[str, bytes]:
    """The bytes of every tensor file of the newest checkpoints."""
    result = {}
    for stage in sorted((folder / "checkpoints").iterdir()):
        newest = max(p for p in stage.iterdir() if p.name.isdigit())
        result |= {f"{stage.name}/{p.name}": p.read_bytes() for p in newest.glob("*.safetensors")}
    return result


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_rate(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "rate"} for row in rows]


# --- schedule, average, optimizer


@given(st.integers(2, 2000), st.integers(0, 300), st.floats(0, 1), st.floats(1e-6, 1))
def test_learning_rate(steps, warmup, final, peak):
    optim = Optim(warmup=warmup, final_lr=final)
    rates = [learning_rate(step, steps, peak, optim) for step in range(steps)]
    warmup = min(warmup, steps // 5)
    for step in (0, steps // 2, steps - 1):
        warm = min(1, (step + 1) / max(1, warmup))
        cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
        assert rates[step] == pytest.approx(peak * warm * (final + (1 - final) * cosine))
    assert all(0 <= rate <= peak * (1 + 1e-9) for rate in rates)
    after = rates[warmup:]
    assert all(b <= a * (1 + 1e-9) for a, b in zip(after, after[1:], strict=False)), "down only, once warm"
    assert rates[-1] >= final * peak * (1 - 1e-9), "warm long before"


def test_a_warm_up_longer_than_a_fifth_is_shortened_and_the_log_says_it():
    short = StageSchedule("coarse", 30, 1.0, 10)
    assert max(short.lr_at(step, Optim(warmup=50)) for step in range(30)) > 0.9, "not 2 % of it"
    assert short.shortened(Optim(warmup=50)) == (
        "stage coarse: warm-up takes 6 of 30 steps, not optim.warmup=50: 1/5 of the steps at most")  # fmt: skip
    both = StageSchedule("refine", 320, 1.0, 10, region_steps=20)
    assert "warm-up takes 4 of 20 steps, not optim.warmup=5:" in both.shortened(Optim(warmup=5))
    defaults = compose_config([])
    for steps in (defaults.stage.coarse.steps, defaults.stage.refine.region_steps, defaults.stage.refine.steps):
        assert not StageSchedule("coarse", steps, 1.0, 10).shortened(defaults.optim), "the defaults warm up as ever"


@settings(deadline=None, max_examples=20)
@given(st.floats(0, 0.9999), st.integers(1, 30))
def test_ema(decay, updates):
    model = torch.nn.Linear(1, 1, bias=False).double()
    ema = Ema(model, decay)
    wanted = model.weight.item()
    for step in range(updates):
        with torch.no_grad():
            model.weight.fill_(math.sin(step))
        ema.update(step)
        now = min(decay, (1 + step) / (10 + step))
        wanted = now * wanted + (1 - now) * math.sin(step)
    assert float(ema.model.weight) == pytest.approx(wanted, abs=1e-9)
    assert not ema.model.weight.requires_grad and not ema.model.training and ema.model is not model


def test_weight_decay_is_of_matrices_alone():
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.LayerNorm(4))
    model[0].weight.requires_grad_(False)
    model.append(torch.nn.Linear(4, 2))
    optimizer = make_optimizer(model, 1e-3, Optim(betas=[0.8, 0.95], weight_decay=0.1))
    decayed, free = optimizer.param_groups
    assert decayed["params"] == [model[2].weight] and decayed["weight_decay"] == 0.1
    assert len(free["params"]) == 4 and free["weight_decay"] == 0
    assert all(group["betas"] == (0.8, 0.95) for group in optimizer.param_groups)


# --- what a step draws


def test_step_noise_depends_on_its_seed_and_is_in_range():
    shape = torch.Size((4000, 1, 2, 2))
    dropout = {"text": 0.1, "sketch": 0.4}
    one = sample_step_noise(Diffusion(), shape, 300, dropout, 0.25, generator(0, "train", "coarse", 3))
    again = sample_step_noise(Diffusion(), shape, 300, dropout, 0.25, generator(0, "train", "coarse", 3))
    other = sample_step_noise(Diffusion(), shape, 300, dropout, 0.25, generator(0, "train", "coarse", 4))
    assert torch.equal(one.noise, again.noise) and torch.equal(one.timesteps, again.timesteps)
    assert not torch.equal(one.noise, other.noise)
    assert one.timesteps.min() == 0 and one.timesteps.max() == 299
    shares = [float(x.float().mean()) for x in (one.keep["text"], one.keep["sketch"], one.recolour)]
    assert shares == pytest.approx([0.9, 0.6, 0.25], abs=0.03)
    both = float((~one.keep["text"] & ~one.keep["sketch"]).float().mean())
    assert both == pytest.approx(0.04, abs=0.015), "each is dropped independently of the other"
    none = sample_step_noise(Diffusion(), shape, 300, dict.fromkeys(dropout, 0.0), 0.0, generator(0, "x"))
    assert none.keep["text"].all() and none.keep["sketch"].all() and none.recolour is None


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 50), st.integers(1, 4))
def test_batches_are_a_function_of_seed_step_and_rank(length, batch, first, ranks):
    whole = list(batch_order(length, batch, 0, range(first + 20)))
    assert list(batch_order(length, batch, 0, range(first, first + 20))) == whole[first:]
    stream = [i for rows in whole for i in rows]
    for epoch in range(len(stream) // length):
        assert sorted(stream[epoch * length : (epoch + 1) * length]) == list(range(length)), "every item once an epoch"
    shares = [list(batch_order(length, batch, 0, range(5), r, ranks)) for r in range(ranks)]
    for step in range(5):
        assert sorted(i for share in shares for i in share[step]) == sorted(whole[step])
    if length > 6:
        assert list(batch_order(length, batch, 1, range(20))) != whole[:20]


# --- losses


@pytest.fixture(scope="module")
def experiment(tiny, tmp_path_factory) -> Training:
    cfg = compose_config([*tiny, f"runs={tmp_path_factory.mktemp('training')}"])
    return Training(cfg, RunFolder.create(cfg))


@pytest.fixture(scope="module")
def batch(experiment):
    return collate([experiment.train_examples[i] for i in range(4)])


def test_the_denoising_loss_is_weighted_item_by_item():
    process = Diffusion()
    target = torch.zeros(2, 1, 2, 2)
    value = torch.stack([torch.full((1, 2, 2), 1.0), torch.full((1, 2, 2), 2.0)])
    t = torch.tensor([10, 900])
    low, high = process.weight(t).tolist()
    assert float(Objective(process).denoising(value, target, t)) == pytest.approx((low * 1 + high * 4) / 2)


def test_weights_of_losses(experiment, batch):
    model = experiment.trainer("refine", {"coarse": experiment.trainer("coarse", {}).bare}).bare
    process = experiment.parts.diffusion
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    plain = Objective(process)(model, batch, x0, drawn)
    weighted = Objective(process, Loss(diffusion=0.5, region_latent=3.0))
    other = weighted(model, batch, x0, drawn)
    torch.testing.assert_close(plain["loss"], plain["diffusion"] + plain["region_latent"])
    torch.testing.assert_close(other["loss"], 0.5 * plain["diffusion"] + 3 * plain["region_latent"])
    alone = weighted(model, batch, x0, drawn, regions_only=True)
    assert set(alone) == {"loss", "region_latent"}
    torch.testing.assert_close(alone["region_latent"], plain["region_latent"])


def test_recoloured_starts_move_regions_of_their_items_alone(experiment, batch):
    x0 = experiment.parts.codec.encode(batch.image)
    drawn = sample_step_noise(Diffusion(), x0.shape, 1000, {}, 0.0, generator(0, "x"))
    assert torch.equal(x_start(x0, batch, drawn), x0)
    damaged = x_start(x0, batch, replace(drawn, recolour=torch.tensor([True, False, False, True])))
    assert torch.equal(damaged[1:3], x0[1:3])
    assert not torch.allclose(damaged[0], x0[0]) and not torch.allclose(damaged[3], x0[3])
    assert torch.equal(batch.image, batch.image.clamp(-1, 1))


# --- a step


def gradient(experiment: Training, stage: str, batch, accumulate: int) -> dict[str, torch.Tensor]:
    """AdamW's first moments after one step: a tenth of the clipped gradient."""
    earlier = {} if stage == "coarse" else {"coarse": experiment.trainer("coarse", {}).bare}
    trainer = experiment.trainer(stage, earlier)
    trainer.oom_retry.accumulate = accumulate
    trainer.step(trainer.plan.steps - 1, batch)
    state = optimizer_state(trainer.bare, trainer.update.optimizer)
    return {name: value for name, value in state.items() if name.endswith("/exp_avg")}


@pytest.mark.parametrize("stage", ["coarse", "refine"])
def test_accumulation_is_one_big_batch(stage, experiment, batch):
    """Recoloured starts and the mean over all regions, which look at a micro-batch's other items, included."""
    whole, parts = (gradient(experiment, stage, batch, n) for n in (1, 4))
    assert whole.keys() == parts.keys() and len(whole) > 50
    scale = max(float(g.abs().max()) for g in whole.values())
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=1e-5 * scale)


def test_the_gradient_is_clipped(experiment, batch):
    trainer = experiment.trainer("coarse", {})
    trainer.update.clip = 1e-3
    trainer.step(0, batch)
    state = optimizer_state(trainer.bare, trainer.update.optimizer)
    share = 1 - trainer.optim.betas[0]
    norm = torch.stack([(v / share).norm() for k, v in state.items() if k.endswith("/exp_avg")]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_both_parts_of_a_plan_warm_up(experiment):
    trainer = experiment.trainer("refine", {"coarse": experiment.trainer("coarse", {}).bare})
    plan, optim = trainer.plan, trainer.optim
    assert plan.region_steps == 3 and plan.steps == 9
    rates = [plan.lr_at(step, optim) for step in range(plan.steps)]
    assert rates[:3] == [learning_rate(i, 3, plan.region_lr, optim) for i in range(3)]
    assert rates[3:] == [learning_rate(i, 6, plan.lr, optim) for i in range(6)]


# --- a run


@pytest.mark.long
def test_the_same_seed_is_the_same_run_and_another_is_not(tiny, finished, tmp_path, figures):
    """A worker process prepares the examples of the second: who does it changes nothing."""
    folder = run(compose_config([*tiny, f"runs={tmp_path}", "stage.workers=1"])).path
    assert weights(folder) == weights(finished)
    assert without_rate(lines(folder)) == without_rate(lines(finished))
    assert figures(folder) == pytest.approx(figures(finished), rel=1e-6)
    cfg = compose_config([*tiny, f"runs={tmp_path}", "seed=1"])
    other = Training(cfg, RunFolder.create(cfg)).trainer("coarse", {})
    same = Training(compose_config([*tiny, f"runs={tmp_path}"]), RunFolder(tmp_path)).trainer("coarse", {})
    first = load_newest(finished / "checkpoints", "coarse").model
    assert not any(torch.equal(p, q) for p, q in zip(other.bare.parameters(), same.bare.parameters(), strict=True)
                   if p.ndim > 1 and p.any())  # fmt: skip
    assert set(first) == set(other.bare.state_dict())


def test_a_run_logs_its_losses_and_which_conditions_it_uses(finished):
    rows = lines(finished)
    losses = [r for r in rows if "validation" not in r]
    assert [(r["stage"], r["step"]) for r in losses] == [
        *(("coarse", i) for i in (2, 3, 4, 6, 8)),  # every other step, and where a checkpoint is written
        *(("refine", i) for i in (2, 3, 4, 6, 8, 9)),
    ]
    for row in losses:
        assert row["lr"] > 0 and row["rate"] > 0 and math.isfinite(row["loss"])
        parts = [v for k, v in row.items() if k.startswith("loss_")]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert {k for r in losses for k in r if k.startswith("loss_") and r["stage"] == "coarse"} == {"loss_diffusion"}
    warm = [r for r in losses if r["stage"] == "refine" and r["step"] <= 3]
    assert all("loss_diffusion" not in r and "loss_region_latent" in r for r in warm)
    usage = [r for r in rows if "validation" in r]
    assert [(r["stage"], r["step"]) for r in usage] == [
        ("coarse", 4), ("coarse", 8), ("refine", 4), ("refine", 8), ("refine", 9),
    ]  # fmt: skip
    names = {"right", "text_shuffled", "sketch_shuffled"}
    scores = {"binding_accuracy", "leak_rate", "sketch_f1", "ssim"}
    fusion = {f"fusion_sketch_{t:03d}" for t in (0, 225, 450, 674, 899)}  # of the 900 that stage 2 is trained on
    assert all(set(r["validation"]) - scores == names | ({"regions_shuffled", *fusion} if r["stage"] == "refine" else set())
               for r in usage)  # fmt: skip
    assert all(0 <= r["validation"].get(name, 0.5) <= 1 for r in usage for name in fusion)
    assert all(math.isfinite(r["validation"][name]) and r["validation"][name] > 0 for r in usage for name in names)
    assert all(-1 <= r["validation"][name] <= 1 for r in usage for name in scores)


def test_a_run_folder_is_whole(finished):
    state = json.loads((finished / "status.json").read_text())
    assert state["state"] == "done" and state["trained"] and state["stage"] == "refine" and state["step"] == 9
    for stage, steps in (("coarse", [6, 8]), ("refine", [6, 9])):
        remaining = sorted(int(p.name) for p in (finished / "checkpoints" / stage).iterdir())
        assert remaining == steps, "the newest two"
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["schema"] == 1 and metrics["config_hash"] == finished.name
    assert {"binding_accuracy", "sketch_f1", "mse", "stage1/mse"} <= set(metrics["metrics"])
    for entry in metrics["metrics"].values():
        assert {"value", "n", "ci95", "higher_is_better", "weights", "seed", "split", "resolution"} <= set(entry)
        assert entry["n"] > 0 and entry["ci95"][0] <= entry["value"] <= entry["ci95"][1]
    grids = sorted(p.name for p in (finished / "samples").glob("*.png"))
    assert grids == [f"coarse-{i:06d}.png" for i in (4, 8)] + [f"refine-{i:06d}.png" for i in (4, 8, 9)]
    assert (finished / "report.html").stat().st_size > 20_000
    assert not [p for p in finished.rglob("*") if p.suffix in (".pt", ".pkl", ".bin", ".ckpt", ".tmp")]
    fusion = json.loads((finished / "samples" / "fusion.json").read_text())
    assert np.allclose(np.add(fusion["sketch"], fusion["text"]), 1, atol=1e-4)


# --- condition usage


def test_shuffling_takes_one_condition_of_the_item_before(batch):
    for condition in (*SketchText().conditions, Condition("regions", 0.0, fields=REGIONS)):
        other, fields = shuffled(batch, condition), condition.fields
        for name in ("captions", "sketch", "labels", "nodes", "image", "keys"):
            old, new = getattr(batch, name), getattr(other, name)
            if name in fields:
                assert all(np.array_equal(new[i], old[i - 1]) for i in range(len(batch)))
            else:
                assert new is old


def test_usage_is_measured_with_one_and_the_same_noise(experiment, batch):
    coarse = experiment.trainer("coarse", {}).bare
    refine = experiment.trainer("refine", {"coarse": coarse}).bare
    objective = Objective(experiment.parts.diffusion)
    alike = collate([experiment.train_examples[0]] * 4)
    for model, names in ((coarse, 3), (refine, 4)):
        given, conditions = (model, objective, experiment.parts.codec), experiment.parts.task.conditions
        usage = condition_usage(*given, [alike, alike], 1000, 0, conditions)
        assert len(usage) == names and len(set(usage.values())) == 1, "shuffled among equals is the same"
        again = condition_usage(*given, [alike, alike], 1000, 0, conditions)
        assert again == usage != condition_usage(*given, [alike], 1000, 1, conditions)


# --- a loss that diverges


class Spoilt(torch.autograd.Function):
    """A loss that is fine, of which the gradient isn't."""

    @staticmethod
    def forward(ctx, loss):
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


def diverged(cfg) -> str:
    """The line that a run ends with; nothing of the run, as its lock, outlives the call."""
    try:
        run(cfg)
    except Diverged as error:
        return str(error)
    pytest.fail("the run went on to its end")


def broken_at(monkeypatch: pytest.MonkeyPatch, step: int, stage: str, gradient_only: bool = False) -> None:
    """From a stage's step on the denoising loss is NaN, or only its gradient is."""
    original = Objective.forward
    count = {"coarse": 0, "refine": 0}

    def forward(self, model, batch, x0, drawn, *args):
        losses = original(self, model, batch, x0, drawn, *args)
        here = "refine" if "region_latent" in losses else "coarse"
        if torch.is_grad_enabled():
            count[here] += 1
            if count[here] >= step and here == stage:
                losses["loss"] = Spoilt.apply(losses["loss"]) if gradient_only else losses["loss"] * math.nan
        return losses

    monkeypatch.setattr(Objective, "forward", forward)


@pytest.mark.long
@pytest.mark.parametrize(("stage", "step", "remaining"), [("coarse", 5, 3), ("coarse", 2, None), ("refine", 8, 6)])
def test_a_nan_stops_at_its_step_and_the_last_good_checkpoint_goes_on(
    stage, step, remaining, tiny, finished, tmp_path, monkeypatch
):
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    with monkeypatch.context() as patch:
        broken_at(patch, step, stage)
        line = diverged(cfg)
    assert f"stage {stage}" in line and f"at step {step};" in line and f"stage.{stage}.lr=" in line
    assert (f"checkpoint of step {remaining} is kept" if remaining else "no checkpoint") in line
    folder = RunFolder(tmp_path / "tiny" / finished.name)
    assert folder.state["state"] == "failed" and "not finite at step" in folder.state["error"]
    result = load_newest(folder.checkpoints, stage)
    assert (result.step if result else None) == remaining
    assert not remaining or all(v.isfinite().all() for v in result.model.values())
    with pytest.raises(UserError, match="unfinished"):
        RunFolder.read(folder.path)
    if stage == "refine":
        run(cfg)  # without the fault the same command goes on to the same end
        assert weights(folder.path) == weights(finished)
        assert without_rate(lines(folder.path)) == without_rate(lines(finished))


def test_weights_that_a_bad_gradient_spoilt_are_never_saved(tiny, finished, cli, tmp_path, monkeypatch):
    """The loss of the step before a checkpoint is fine, its gradient isn't. From the command line."""
    broken_at(monkeypatch, 6, "coarse", gradient_only=True)
    status, _, err = cli(command_line, *tiny, f"runs={tmp_path}")
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert status == 2 and "at step 6; the checkpoint of step 3 is kept" in line and "Traceback" not in err
    result = load_newest(tmp_path / "tiny" / finished.name / "checkpoints", "coarse")
    assert result.step == 3 and all(v.isfinite().all() for v in result.model.values())


def test_time_that_runs_out_is_an_interruption(tiny, tmp_path):
    cfg = compose_config([*tiny, f"runs={tmp_path}", "stage.max_seconds=0.001", "stage.run=[coarse]"])
    for step in (1, 2):
        with pytest.raises(UserError, match=f"stopped at step {step} .*the same command continues"):
            run(cfg)
        (folder,) = (tmp_path / "tiny").iterdir()
        assert RunFolder(folder).state["state"] == "preempted"


@pytest.mark.parametrize(("split", "key"), [("val", "data.val"), ("test", "data.test"), ("train", "data.train")])
def test_an_empty_split_is_refused_before_training(split, key, tiny, tmp_path):
    words = [w for w in tiny if not w.startswith(f"{key}=")]
    with pytest.raises(UserError, match=f"no items in the {split} split"):
        run(compose_config([*words, f"{key}=0", f"runs={tmp_path}"]))


@pytest.mark.parametrize("override", ["injection.points=[nowhere]", "ragaf.width=33", "data.size=36"])
def test_what_cannot_be_built_is_refused_before_training(override, tiny, tmp_path):
    words = [w for w in tiny if w.partition("=")[0] != override.partition("=")[0]]
    with pytest.raises(UserError, match=override.partition("=")[0]):
        run(compose_config([*words, override, f"runs={tmp_path}"]))
    assert not list(tmp_path.rglob("metrics.jsonl"))


# --- devices


def test_precisions_and_devices():
    assert pick_precision("no", torch.device("cpu")) == "no"
    assert pick_precision("auto", torch.device("cpu")) in ("no", "bf16")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="memory.device=cuda"):
            Compute("cuda")
        assert Compute("auto").device.type == "cpu"
    compute = Compute("cpu", "bf16")
    with compute:
        with compute:
            pass
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
