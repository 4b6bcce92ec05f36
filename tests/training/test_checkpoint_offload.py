"""Inputs of checkpointed blocks in main memory: the same gradients, less memory on the device."""

from __future__ import annotations

import pytest
import torch

from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan.dry_run import DryRun
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.plan.predict import predict
from ragaf_exp.training import checkpoint_offload
from ragaf_exp.training.checkpoint_offload import Offloaded, to_device, to_main_memory

TRANSFORMER = ["backbone.width=64", "backbone.depth=4", "backbone.heads=2"]


@pytest.fixture
def moved(monkeypatch) -> list[int]:
    """Sizes of the tensors that are moved, on a processor too."""
    sizes: list[int] = []
    monkeypatch.setattr(checkpoint_offload, "MAIN_MEMORY", ())
    monkeypatch.setattr(checkpoint_offload, "LEAST", 1)
    monkeypatch.setattr(
        checkpoint_offload, "to_main_memory", lambda x: (sizes.append(x.nbytes), to_main_memory(x))[1]
    )
    return sizes


def gradients(tiny, backbone: list[str], *memory: str) -> dict[str, torch.Tensor]:
    """Gradients after a training step without an update."""
    options = [word for word in tiny if not (backbone and word.startswith("backbone."))]
    cfg = compose_config([*options, *backbone, *memory])
    run = DryRun(cfg, Compute("cpu", "no"))
    trainer = run.trainer("refine", run.models(chain(cfg)[:1]))
    taken: dict[str, torch.Tensor] = {}
    hold = lambda: taken.update({n: p.grad.clone() for n, p in trainer.bare.named_parameters() if p.grad is not None})  # noqa: E731
    trainer.update.optimizer.step = lambda *args, **settings: hold()
    torch.manual_seed(0)
    batch = largest_batch(2, cfg.data.size, cfg.regions.max_regions)
    batch.image.normal_(), batch.sketch.bernoulli_(0.2)
    trainer.step(trainer.plan.steps - 1, batch)
    return taken


@pytest.mark.parametrize("backbone", [[], ["backbone=dit", *TRANSFORMER]], ids=["unet", "dit"])
def test_gradients_are_the_same_to_the_bit(tiny, moved, backbone):
    """diffusers' blocks and those of this package call the same function."""
    plain = gradients(tiny, backbone, "memory.checkpointing=true")
    assert not moved
    offloaded = gradients(tiny, backbone, "memory.checkpointing=true", "memory.offload_checkpoints=true")
    assert len(moved) > 4 and plain.keys() == offloaded.keys() and len(plain) > 10
    assert all(torch.equal(plain[name], offloaded[name]) for name in plain)


def test_a_tensor_comes_back_as_it_was(moved):
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    away = to_main_memory(x)
    assert isinstance(away, Offloaded) and away.data is not None and away.data.data_ptr() != x.data_ptr()
    back = to_device(away)
    assert torch.equal(back, x) and back.stride() == x.stride()
    weight = torch.nn.Parameter(x)
    assert to_main_memory(weight) is weight, "weights have their own options"


def test_small_tensors_and_those_in_main_memory_stay():
    x = torch.empty(2**20, device="meta")
    assert isinstance(to_main_memory(x), Offloaded) and to_device(to_main_memory(x)).shape == x.shape
    small, here = torch.empty(2**10, device="meta"), torch.empty(2**20)
    assert to_main_memory(small) is small and to_main_memory(here) is here


@pytest.mark.long
def test_the_planner_counts_it(tiny):
    """The tokens of each block, and the prediction that the head refines, leave the device."""
    options = [word for word in tiny if not word.startswith(("backbone.", "data.size"))]
    size = ["backbone=dit", *TRANSFORMER, "data.size=256", "stage.batch=16", "memory.checkpointing=true"]
    peaks = [predict(compose_config([*options, *size, f"memory.offload_checkpoints={on}"]), "no", ("coarse",))[0]
             for on in ("false", "true")]  # fmt: skip
    saved = peaks[0].bytes - peaks[1].bytes
    tokens, prediction = 16 * (256 // 8) ** 2 * 64 * 4, 16 * 3 * 256**2 * 4  # bytes
    assert saved == pytest.approx(4 * tokens + prediction, rel=0.01)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "set memory.checkpointing=true"),
        (["memory.checkpointing=true", "memory.compile=true"], "set memory.compile=false"),
    ],
)
def test_what_it_does_not_go_with_is_refused(options, says):
    with pytest.raises(UserError, match=says):
        compose_config(["memory.offload_checkpoints=true", *options])
