"""Options of config group `memory` that save memory: same numbers, less of it, and bit-exact resume."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import Optim
from ragaf_exp.core.errors import Diverged, UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.evaluation.run import evaluation_context
from ragaf_exp.experiments.training import Training
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.offload import OffloadedModules
from ragaf_exp.training.optimizer import make_optimizer, optimizer_state, restore_optimizer
from ragaf_exp.training.setup import plan
from ragaf_exp.training.trainer import Hooks, Networks, Settings, Trainer

EIGHT_BIT = pytest.mark.skipif("not installed()", reason="bitsandbytes is not installed")
SHORT = "stage.coarse.steps=4 stage.refine.steps=3 stage.refine.region_steps=1 stage.checkpoint_every=2".split()


def installed() -> bool:
    """Checked when a test runs: while test modules are imported, the library is hidden."""
    return importlib.util.find_spec("bitsandbytes") is not None


@pytest.fixture(scope="module")
def experiment(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Training:
    taken = {word.partition("=")[0] for word in SHORT}
    words = [w for w in tiny if w.partition("=")[0] not in taken]
    cfg = compose_config([*words, *SHORT, f"runs={tmp_path_factory.mktemp('savers')}"])
    return Training(cfg, RunFolder.create(cfg))


@pytest.fixture
def trainer(experiment: Training, tmp_path: Path) -> Callable[..., Trainer]:
    """trainer(stage, precision, clip, settings of memory) -> a fresh one, of this test's own folder."""

    def make(stage: str = "refine", precision: str = "no", clip: float = 1.0, **memory) -> Trainer:
        s, parts = experiment.settings, experiment.parts
        model = make_model(parts, stage)
        requested, objective = plan(experiment.cfg, stage, parts), Objective(parts.diffusion, s["loss"])
        folder = RunFolder(tmp_path)
        folder.status("running")
        optim, saving = replace(s["optim"], clip=clip), replace(s["memory"], **memory)
        settings = Settings(s["stage"], optim, s["task"], saving, 0)
        hooks = Hooks(lambda model, step: {"right": 0.5}, lambda stage, step, figures: None)
        networks = Networks(model, objective, parts.codec)
        made = Trainer(requested, networks, folder, Compute("cpu", precision), settings, hooks)
        made.examples = experiment.train_examples
        return made

    return make


def stepped(trainer: Trainer, steps: int = 2) -> dict[str, torch.Tensor]:
    """The weights after a few joint steps, each on another batch."""
    for step in range(steps):
        batch = collate([trainer.examples[4 * step + i] for i in range(4)])
        trainer.step(trainer.plan.region_steps + step, batch)
    return {name: p.detach().clone() for name, p in trainer.bare.named_parameters()}


def held(trainer: Trainer) -> int:
    """Bytes that autograd keeps for the backward pass of one joint step, weights not counted."""
    weights = {p.untyped_storage().data_ptr() for p in trainer.bare.parameters()}
    recorded: dict[int, int] = {}
    alive = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if (place := tensor.untyped_storage().data_ptr()) not in weights:
            recorded[place] = tensor.untyped_storage().nbytes()
            alive.append(tensor)
        return tensor

    backward, most = trainer.update.backward, []
    trainer.update.backward = lambda loss: (most.append(sum(recorded.values())), backward(loss))
    batch = collate([trainer.examples[i] for i in range(4)])
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        trainer.step(trainer.plan.region_steps, batch)
    return most[0]


# --- checkpointing, memory order


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_checkpointing_has_the_same_gradients_and_keeps_less(precision, trainer):
    plain, thrifty = (trainer(precision=precision, checkpointing=on) for on in (False, True))
    wanted, result = stepped(plain), stepped(thrifty)
    assert wanted.keys() == result.keys()
    for name in wanted:
        assert torch.equal(wanted[name], result[name]), name
    assert held(thrifty) < 0.6 * held(plain)


def test_channels_last_is_another_order_of_the_same_numbers(trainer):
    plain, other = (trainer(channels_last=on) for on in (False, True))
    conv = other.bare.backbone.unet.conv_in.weight
    assert conv.is_contiguous(memory_format=torch.channels_last) and not conv.is_contiguous()
    wanted, result = stepped(plain, 1), stepped(other, 1)
    rates = 2.1 * plain.plan.lr_at(plain.plan.region_steps, plain.optim)  # AdamW's first step turns noise's sign round
    assert all((wanted[name] - result[name]).abs().max() <= rates for name in wanted)
    assert sum(float((wanted[n] - result[n]).abs().mean()) for n in wanted) < 0.02 * rates * len(wanted)


def test_moments_come_back_in_the_parameters_own_memory_order():
    def model():
        torch.manual_seed(0)
        return torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)

    def train(net, optimizer, steps):
        for step in steps:
            torch.manual_seed(step)
            net(torch.randn(2, 3, 8, 8)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

    through, first, second = model(), model(), model()
    optimizers = [make_optimizer(net, 1e-2, Optim()) for net in (through, first, second)]
    train(through, optimizers[0], range(4))
    train(first, optimizers[1], range(2))
    saved = {k: v.contiguous() for k, v in optimizer_state(first, optimizers[1]).items()}
    second.load_state_dict(first.state_dict())
    restore_optimizer(second, optimizers[2], saved)
    train(second, optimizers[2], range(2, 4))
    assert torch.equal(through.weight, second.weight)


# --- the average


@pytest.mark.parametrize("place", ["device", "cpu", "off"])
def test_an_average_is_served_and_the_trained_weights_come_back(place):
    model = torch.nn.Linear(2, 2)
    ema = Ema(model, 0.9, place)
    with torch.no_grad():
        model.weight.fill_(3.0)
    ema.update(0)
    mean = ema.model.weight.clone()
    with ema.serving() as served:
        assert torch.equal(served.weight, mean) and not served.training
        assert (served is model) == (place != "device")
    assert model.training and torch.equal(model.weight, torch.full((2, 2), 3.0))
    assert torch.equal(ema.model.weight, mean) and torch.equal(mean, model.weight) == (place == "off")


def test_frozen_weights_are_not_copied():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2).requires_grad_(False), torch.nn.Linear(2, 2))
    ema = Ema(model, 0.9)
    assert ema.model[0].weight is model[0].weight and ema.model[1].weight is not model[1].weight


def test_without_an_average_checkpoints_hold_the_trained_weights_for_it(trainer, tmp_path):
    made = trainer("coarse", ema="off")
    model = made.fit(made.examples)
    result = load_newest(tmp_path / "checkpoints", "coarse")
    assert model is made.bare and not any(p.requires_grad for p in model.parameters())
    assert all(torch.equal(result.model[name], result.ema[name]) for name in result.model)


def test_figures_say_whether_weights_were_averaged(experiment):
    for place, output in (("device", "ema"), ("cpu", "ema"), ("off", "raw")):
        cfg = OmegaConf.merge(experiment.cfg, {"memory": {"ema": place}})
        model = make_model(experiment.parts, "coarse")
        assert evaluation_context(cfg, experiment.parts, model).measured_with["weights"] == output


# --- networks that rest


class Moved(torch.nn.Module):
    """Notes where it is sent."""

    def __init__(self):
        super().__init__()
        self.places = []

    def to(self, place):
        self.places.append(str(place))
        return self


def test_what_no_step_uses_is_on_the_device_for_validation_alone(trainer):
    network = Moved()
    resting = OffloadedModules([network], torch.device("cuda"))
    assert network.places == ["cpu"]
    with pytest.raises(ValueError), resting.on_device():
        assert network.places == ["cpu", "cuda"]
        raise ValueError
    assert network.places == ["cpu", "cuda", "cpu"]


def test_stage_1_is_offloaded_while_stage_2_trains(experiment):
    coarse = experiment.trainer("coarse", {}).bare
    on, off = (replace(experiment.settings["memory"], offload=offload) for offload in (True, False))
    remaining = {}
    for name, memory in (("on", on), ("off", off)):
        experiment.settings["memory"] = memory
        remaining[name] = experiment.trainer("refine", {"coarse": coarse}).offloaded.networks
    assert remaining["off"] == () and len(remaining["on"]) == 1 and remaining["on"][0] is coarse


# --- the optimizer


def test_the_step_within_the_backward_pass_is_the_plain_one(trainer):
    plain, early = (trainer(clip=0, step_in_backward=on) for on in (False, True))
    wanted, result = stepped(plain), stepped(early)
    assert all(torch.equal(wanted[name], result[name]) for name in wanted)
    ends = [t.update.tensors() for t in (plain, early)]
    assert ends[0].keys() == ends[1].keys() and all(torch.equal(ends[0][k], ends[1][k]) for k in ends[0])
    applied, left = early.update.apply, []
    early.update.apply = lambda: (left.append([p for p in early.bare.parameters() if p.grad is not None]), applied())
    stepped(early, 1)
    assert left == [[]], "no gradient outlives the backward pass"


@pytest.mark.parametrize(
    ("more", "says"),
    [(["optim.clip=1"], "optim.clip=0"), (["optim.clip=0", "stage.accumulate=2"], "stage.accumulate=1"),
     (["optim.clip=0", "memory.precision=fp16"], "bf16")],
)  # fmt: skip
def test_what_needs_gradients_is_refused_with_the_step_in_backward(more, says):
    with pytest.raises(UserError, match=says):
        compose_config(["memory.step_in_backward=true", *more])


@EIGHT_BIT
def test_eight_bits_hold_the_moments_in_a_quarter_and_less():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(128, 256), torch.nn.SiLU(), torch.nn.Linear(256, 128))
    sizes = []
    for kind in ("adamw", "adamw8bit"):
        optimizer = make_optimizer(model, 1e-3, Optim(), kind)
        model(torch.randn(4, 128)).square().mean().backward()
        optimizer.step()
        state = optimizer_state(model, optimizer)
        sizes.append(sum(v.nbytes for k, v in state.items() if "qmap" not in k))  # a table that all tensors share
    assert sizes[1] < 0.3 * sizes[0]


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        make_optimizer(torch.nn.Linear(2, 2), 1e-3, Optim(), "adamw8bit")


# --- resume


@pytest.mark.long
@pytest.mark.parametrize(
    "memory",
    [pytest.param({"optimizer": "adamw8bit"}, marks=EIGHT_BIT), {"step_in_backward": True, "clip": 0},
     {"precision": "fp16"}, {"channels_last": True, "checkpointing": True, "ema": "cpu"}],
    ids=["8bit", "in_backward", "fp16", "channels_last"],
)  # fmt: skip
def test_resume_is_to_the_bit(memory, trainer, tmp_path):
    """A run, and one that went on from the checkpoint of step 2 as another process would."""
    made = trainer("coarse", **memory)
    made.fit(made.examples)
    place = tmp_path / "checkpoints" / "coarse" / "00000004"
    whole = {p.name: p.read_bytes() for p in place.iterdir()}
    shutil.rmtree(place)
    again = trainer("coarse", **memory)
    again.fit(again.examples)
    assert {p.name: p.read_bytes() for p in place.iterdir()} == whole and len(whole) == 4
    if "optimizer" in memory:
        assert any(v.dtype == torch.uint8 for v in again.update.tensors().values())


# --- float16


def overflowing(made: Trainer, steps: set[int], scale: float = 1024.0) -> Trainer:
    """Gradients of these steps, counted from 0, overflow, as float16's do; no other's does."""
    original, count = made.update.backward, []

    def backward(loss: torch.Tensor) -> None:
        count.append(loss)
        original(loss * math.inf if len(count) - 1 in steps else loss)

    made.update.backward = backward
    made.update.restore({}, {"scale": scale, "good_steps": 0, "skipped": 0})
    return made


@pytest.mark.long
def test_an_overflow_skips_its_step_lowers_the_scale_and_is_logged(trainer, tmp_path):
    made = overflowing(trainer("coarse", precision="fp16"), {1, 2})
    made.fit(made.examples)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["skipped_steps"], r["loss_scale"]) for r in rows if "loss" in r] == [(2, 1, 512), (4, 2, 256)]
    result = load_newest(tmp_path / "checkpoints", "coarse")
    assert result.numbers == {"scale": 256.0, "good_steps": 1, "skipped": 2}
    assert all(value.isfinite().all() for value in result.model.values())
    assert {int(v) for k, v in result.optimizer.items() if k.endswith("/step")} == {2}, "skipped steps are none"


@pytest.mark.long
def test_gradients_that_overflow_at_any_scale_are_a_divergence(trainer):
    made = overflowing(trainer("coarse", precision="fp16"), {0, 1, 2, 3}, scale=2.0**-7)
    with pytest.raises(Diverged, match="stage coarse.*at step 4"):
        made.fit(made.examples)
    assert made.update.skipped == 4


def test_float16_follows_float32(trainer):
    losses = []
    for precision in ("no", "fp16"):
        made = overflowing(trainer(precision=precision), set())
        stepped(made, 2)
        losses.append([float(r["loss"]) for r in made.metrics_logger.recent])
    assert losses[0] == pytest.approx(losses[1], rel=0.03)


def test_clipping_sees_unscaled_gradients(trainer):
    made = overflowing(trainer("coarse", "fp16", clip=1e-3), set())
    stepped(made, 1)
    moments = [v for k, v in made.update.tensors().items() if k.endswith("/exp_avg")]
    norm = torch.stack([(m / (1 - made.optim.betas[0])).norm() for m in moments]).norm()
    assert float(norm) == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.long
def test_a_scaled_step_that_ran_out_of_memory_is_redone(trainer, monkeypatch):
    made, other = (overflowing(trainer("coarse", "fp16"), set()) for _ in range(2))
    clip, failed = made.accelerator.clip_grad_norm_, []

    def once(*args):
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("out of memory")
        return clip(*args)

    monkeypatch.setattr(made.accelerator, "clip_grad_norm_", once)
    stepped(made, 1), stepped(other, 1)
    assert failed and made.update.numbers() == other.update.numbers() == {"scale": 1024.0, "good_steps": 1, "skipped": 0}
    mine, theirs = (trainer.metrics_logger.recent[0]["loss"] for trainer in (made, other))
    torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=0)
