"""Remembered operations on the meta device give what the operations give, and plans with them are the same to the byte."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import REFINE
from ragaf_exp.models.backbones.flux import Flux
from ragaf_exp.models.backbones.qwen_image import QwenImage
from ragaf_exp.plan import meta_kernels
from ragaf_exp.plan.dry_run import TrainingFixture
from ragaf_exp.plan.predict import VALIDATION, predict
from ragaf_exp.plan.tracker import Tracker

DTYPES = [torch.float32, torch.bfloat16, torch.int64, torch.bool]


def layout(x):
    return x.shape, x.stride(), x.dtype, x.device, x.untyped_storage().nbytes()


@settings(deadline=None, max_examples=15)
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=3), st.sampled_from(DTYPES), st.sampled_from([1, 1.0, True, 2.5]),
    st.booleans(),
)  # fmt: skip
def test_a_remembered_operation_returns_what_a_call_returns(shape, dtype, scalar, transposed):
    x = torch.zeros(shape, dtype=dtype, device="meta")
    x = x.mT if transposed else x
    calls = [
        lambda: x * scalar, lambda: x.float().softmax(-1), lambda: x.sum(), lambda: x.float() @ x.float().mT,
        lambda: torch.cat([x, x], -1), lambda: x.clone(), lambda: x.to(torch.float16), lambda: torch.zeros_like(x),
        lambda: F.layer_norm(x.float(), x.shape[-1:]), lambda: x.float().max(-1)[0], lambda: x.float().max(-1)[1],
        lambda: x.mT.contiguous(), lambda: torch.ones(shape, device="meta"), lambda: x.reshape(-1)[:1] + 1,
    ]  # fmt: skip
    for call in calls:
        expected = layout(call())
        with Tracker():
            assert layout(call()) == layout(call()) == expected


def test_views_and_changes_in_place_share_their_storage():
    with torch.device("meta"), Tracker():
        x = torch.zeros(4, 6)
        for _ in range(3):
            assert x.view(24).untyped_storage()._cdata == x.untyped_storage()._cdata
            assert torch.ops.aten._unsafe_view(x, [24]).untyped_storage()._cdata == x.untyped_storage()._cdata
            assert x.add_(1) is x and x.mul_(x) is x
            assert x.reshape(24).untyped_storage()._cdata == x.untyped_storage()._cdata
        y = torch.empty(0).resize_(7)
        assert torch.empty(0).resize_(7).shape == y.shape


def test_gradients_and_values_on_other_devices_are_untouched():
    with Tracker("cpu"):
        for _ in range(2):
            x = torch.arange(3.0, requires_grad=True)
            (x.exp() * 2).sum().backward()
            assert torch.allclose(x.grad, 2 * torch.arange(3.0).exp())


@pytest.mark.long
def test_plans_are_the_same_to_the_byte(tiny, monkeypatch):
    """The embedded network, and Flux with few layers, LoRA and checkpoints."""
    monkeypatch.setattr(Flux, "builtin", {"guidance_embeds": True, "num_layers": 1, "num_single_layers": 2})
    flux = ["backbone=flux", "memory=lora", "memory.checkpointing=true", "backbone.every=1", "data.size=64"]
    for overrides in (tiny, flux):
        cfg = compose_config(list(overrides))
        remembered = predict(cfg, "bf16", (REFINE, VALIDATION))
        with monkeypatch.context() as patched:
            patched.setattr(meta_kernels, "call", lambda func, args, kwargs: func(*args, **kwargs))
            assert predict(cfg, "bf16", (REFINE, VALIDATION)) == remembered


def second_step(fixture, tracker):
    """The peak of a second step, which is run."""
    fixture.first_step(tracker)
    tracker.start()
    fixture.trainer.step(fixture.number, fixture.batch)


SAVING = ["memory.checkpointing=true", "memory.optimizer=adamw8bit", "memory.ema=cpu", "memory.offload=true"]


@pytest.mark.long
@pytest.mark.parametrize("overrides", [
    ["backbone=tiny"], ["task=inpaint", "stage.accumulate=2"], SAVING, ["memory.step_in_backward=true", "optim.clip=0"],
    ["optim=adamw"], ["backbone=flux", "memory=16gb"], ["backbone=qwen_image", "memory=16gb"],
    ["backbone=qwen_image", "memory=24gb"], ["memory=24gb", "memory.base=bfloat16", "memory.swap=2"], ["memory=80gb"],
])  # fmt: skip
def test_the_peak_of_a_later_step_is_that_of_a_second_one(overrides, tiny, monkeypatch):
    monkeypatch.setattr(Flux, "builtin", {"guidance_embeds": True, "num_layers": 1, "num_single_layers": 2})
    monkeypatch.setattr(QwenImage, "builtin", {"num_layers": 2})
    large = any(word.startswith("memory=") for word in overrides)
    cfg = compose_config([*([] if large else tiny), *overrides])
    planned = predict(cfg, "bf16")
    with monkeypatch.context() as patched:
        patched.setattr(TrainingFixture, "later_step", second_step)
        patched.setattr("ragaf_exp.plan.predict.one_micro_batch", lambda cfg: cfg)
        assert predict(cfg, "bf16") == planned


def test_training_does_not_depend_on_the_items_that_are_evaluated_at_once(tiny):
    one, many = (predict(compose_config([*tiny, f"eval.batch={count}"]), "bf16", ("coarse", REFINE)) for count in (1, 8))
    assert one == many
