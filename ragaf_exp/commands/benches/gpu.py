"""Benchmark of training steps on a GPU with random weights: time, peak next to the plan, attention kernels, diffusers.

Without a GPU only the embedded networks are measured, and no peak.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ragaf_exp.commands.benches.timing import medians, row, synchronize
from ragaf_exp.core.imports import stub_optional_imports

PROFILES = ("8gb", "16gb", "24gb", "32gb")  # 24gb: Flux
CONTROLNET = ("memory=16gb", "hint=controlnet", "memory.features=all", "stage.batch=4", "stage.accumulate=1")
TURNS = 5
GIB = 2**30


def gpu() -> list[dict[str, Any]]:
    """Training steps of stage 2 by profile, and of ControlNet in stage 1 next to diffusers' own."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = list(step_rows("embedded", [], device))
    if device == "cpu":
        print("gpu: no CUDA device, so the profiles' steps and peaks are not measured")
        return rows
    for profile in PROFILES:
        rows += step_rows(profile, [f"memory={profile}"], device)
    return [*rows, *diffusers_rows([*CONTROLNET], device)]


def step_rows(name: str, overrides: list[str], device: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a training step of stage 2.

    Args:
        name: Name of the rows.
        overrides: Of the config.
        device: cuda or cpu.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from ragaf_exp.compute.out_of_memory import free

    free()  # what an earlier profile reserved, which would count in this one's peak
    step = RandomStep(overrides, -1, device)

    def eager() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            step()

    step()  # allocates the optimizer's state
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step()
        peak = torch.cuda.max_memory_reserved() / GIB
        what = "reference: the plan, with 0.45 GiB outside the allocator"
        yield row(f"gpu/{name}/peak", peak, step.planned(), "GiB", what)
    own, matrices = medians([step, eager], TURNS)
    what = f"a step of {step.items} items, {step.trainer.compute}"
    yield {"name": f"gpu/{name}/step", "value": own, "unit": "ms", "what": what}
    yield row(f"gpu/{name}/attention", own, matrices, "ms", "the same step; reference: attention as matrix products")


def diffusers_rows(overrides: list[str], device: str) -> Iterator[dict[str, Any]]:
    """Yield the row of ControlNet's step in stage 1, next to a step as diffusers' train_controlnet.py takes it.

    Args:
        overrides: Of the config, with hint=controlnet and a UNet.
        device: cuda or cpu.
    """
    step = RandomStep(overrides, 0, device)
    own, reference = medians([step, diffusers_step(step)], TURNS)
    what = f"ControlNet, {step.items} items, outputs of the encoders cached; reference: the step of diffusers' script"
    yield row("gpu/controlnet/step", own, reference, "ms", what)


class RandomStep:
    """A training step on a batch of zeros, with random weights.

    Args:
        overrides: Of the config.
        number: Index of the stage in the chain: 0 for the first, -1 for the last.
        device: cuda or cpu.
    """

    def __init__(self, overrides: list[str], number: int, device: str):
        import torch

        from ragaf_exp.config.compose import compose_config

        with stub_optional_imports():
            from ragaf_exp.compute.device import Compute
            from ragaf_exp.config.stages import chain
            from ragaf_exp.plan.dry_run import DryRun
            from ragaf_exp.plan.unloaded import step_items, unloaded

        self.cfg = compose_config([*overrides, f"memory.device={device}"])
        cfg, self.stage = unloaded(self.cfg), chain(self.cfg)[number]
        with torch.device(device):
            run = DryRun(cfg, Compute(device, "auto"))
            earlier = run.models(chain(cfg)[: self.stage.number - 1])
            self.trainer = run.trainer(self.stage.name, earlier)
            self.items = step_items(cfg)
            self.batch = run.batch(self.items, self.trainer.bare)
        run.parts.codec.to(device)

    def __call__(self) -> None:
        """Take the step."""
        self.trainer.step(self.trainer.plan.steps - 1, self.batch)
        self.trainer.metrics_logger.recent.clear()
        synchronize()

    def planned(self) -> float:
        """The predicted peak in GiB."""
        from ragaf_exp.plan.budget import needs

        return needs(self.cfg, (self.stage.name,))[0].total / GIB


def diffusers_step(step: RandomStep) -> Callable[[], None]:
    """Build a step of diffusers' train_controlnet.py: ControlNet from the UNet, frozen UNet, AdamW, clipped gradients.

    Args:
        step: Our step, whose network, batch and precision it takes.
    """
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel
    from torch.nn import functional

    compute, batch, clip = step.trainer.compute, step.batch, step.trainer.optim.clip
    net: Any = step.trainer.bare.backbone.get_submodule("unet")
    with torch.device(compute.device):
        unet = UNet2DConditionModel.from_config(net.config).requires_grad_(False).to(compute.dtype)
        widths = tuple(step.cfg.hint.channels)
        control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=widths).to(torch.float32)
        x_t = torch.randn(step.trainer.codec.latent_shape(batch), dtype=compute.dtype)
        t = torch.full((len(batch),), 500)
        tokens = (len(batch), step.trainer.bare.text.max_tokens, net.config.cross_attention_dim)
        text = torch.randn(tokens, dtype=compute.dtype)
        sketch = batch.sketch.expand(-1, 3, -1, -1)
    optimizer = torch.optim.AdamW(control.parameters(), lr=1e-5)

    def call() -> None:
        with compute:
            down, middle = control(x_t, t, encoder_hidden_states=text, controlnet_cond=sketch, return_dict=False)
            further = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
            prediction = unet(x_t, t, encoder_hidden_states=text, **further).sample
            loss = functional.mse_loss(prediction.float(), x_t.float())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(control.parameters(), clip or 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        synchronize()

    return call
