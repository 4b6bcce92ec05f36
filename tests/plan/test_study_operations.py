"""Counted operations: what the meta device counts is what a processor does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ragaf_exp.assembly.model import make_model
from ragaf_exp.compute.device import Compute
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.plan.dry_run import DryRun
from ragaf_exp.plan.dummies import largest_batch
from ragaf_exp.plan.flops import ROWS, count_flops, main


@pytest.fixture(scope="module")
def operations(tiny):
    return count_flops(compose_config(tiny))


@pytest.mark.parametrize("stage", [COARSE, REFINE])
def test_a_denoisers_operations_are_those_of_a_processor(stage, tiny, operations):
    cfg, items = compose_config(tiny), 3
    rehearsal = DryRun(cfg, Compute("cpu", "no"))
    model, batch = make_model(rehearsal.parts, stage), largest_batch(items, cfg.data.size, cfg.regions.max_regions)
    latent = torch.zeros(rehearsal.parts.codec.latent_shape(batch))
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        conditions = model.condition(batch)
        with FlopCounterMode(display=False) as counter:
            model.denoise(latent, torch.zeros(items), conditions)
    assert counter.get_total_flops() / items == operations[stage]["denoiser call"]


def test_a_step_is_forward_and_twice_that_backward(operations):
    for counts in operations.values():
        forward = counts["denoiser call"] + counts["conditions"]
        assert 2.5 * forward < counts["training step"] <= 4.5 * forward
    assert operations[REFINE]["denoiser call"] > operations[COARSE]["denoiser call"]


@pytest.mark.long
def test_the_table(tiny, cli, operations):
    status, out, _ = cli(main, *tiny)
    head, *rows = out.splitlines()
    assert status == 0 and head.split() == ["GFLOP", "per", "item", COARSE, REFINE, "ratio"]
    for row, line in zip(ROWS, rows, strict=True):
        ratio = operations[REFINE][row] / operations[COARSE][row]
        assert line.startswith(row) and float(line.split()[-1]) == pytest.approx(ratio, abs=6e-4)
