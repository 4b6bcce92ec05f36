"""Insertion trained with DREAM: one more forward pass without gradients, and other inputs and losses."""

from __future__ import annotations

import pytest
import torch

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.randomness import generator
from ragaf_exp.data.loader import collate
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.objective import Objective
from ragaf_exp.training.step_noise import sample_step_noise


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_steps_with_dream_have_another_input(tiny, tmp_path, power):
    cfg = compose_config(["+experiment=insert", *tiny, f"runs={tmp_path}", f"task.dream={power}"])
    parts = assemble(cfg, RunFolder.create(cfg))
    model = make_model(parts, "coarse")
    batch = collate(parts.examples("train").first(2))
    x_0 = parts.codec.encode(batch.image)
    rng = generator(0, "test")
    noise = sample_step_noise(parts.diffusion, x_0.shape, parts.diffusion.timesteps, {}, 0.0, rng)
    inputs = []

    def recorded(*args):
        inputs.append((args[1].clone(), torch.is_grad_enabled()))
        return model(*args)

    losses = Objective(parts.diffusion, task=parts.task, codec=parts.codec)(recorded, batch, x_0, noise)
    assert losses["loss"].requires_grad
    plain = parts.diffusion.add_noise(x_0, noise.noise, noise.timesteps)
    if power:
        (first, with_gradients), (second, again) = inputs
        assert torch.equal(first, plain) and not torch.equal(second, plain)
        assert (with_gradients, again) == (False, True)
    else:
        assert len(inputs) == 1 and torch.equal(inputs[0][0], plain)
