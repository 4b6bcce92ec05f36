"""memory.swap: the same bits with frozen blocks in main memory, at most two of them on the device, and its plan."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import built, config, overrides, save_all, trained_twice, training_of
from tiny_sd import save_sd

from ragaf_exp import run as command
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.models.swapping import SwappedBlocks, swapped_weights
from ragaf_exp.plan.predict import SAMPLING, VALIDATION, predict

SWAP, SAVER = "memory.swap=3", "memory.checkpointing=true"
TUNED = {"lora": ["memory.tune=lora", "memory.lora_rank=2"], "frozen": ["memory.tune=frozen", "hint=controlnet"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


def watched(monkeypatch: Any) -> list[int]:
    """The number of blocks on the device at each call of a block, from now on."""
    counts: list[int] = []
    fetch = SwappedBlocks._fetch

    def counting(self, i, device):
        fetch(self, i, device)
        away = [ps for ps, homes in ((self.weights[k], h) for k, h in self.home.items()) if not same(ps, homes)]
        counts.append(len(away))

    monkeypatch.setattr(SwappedBlocks, "_fetch", counting)
    return counts


def same(parameters: list[Any], homes: list[torch.Tensor]) -> bool:
    return all(p.data_ptr() == home.data_ptr() for p, home in zip(parameters, homes, strict=True))


def both_stages(cfg: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor, Any]:
    """Trained weights of both stages after two steps, an image, and the last model."""
    training, batch = training_of(cfg)
    weights, models = {}, {}
    for stage in (COARSE, REFINE):
        trainer = training.trainer(stage, models)
        _, changed = trained_twice(trainer, batch)
        weights |= {f"{stage}.{name}": p.detach().clone() for name, p in trainer.bare.named_parameters() if name in changed}
        models[stage] = trainer.ema.model
    images = make_pipeline(cfg, training.parts, models, training.compute)(batch).images["stage2"]
    return weights, images, trainer.bare


@pytest.mark.long
@pytest.mark.parametrize(("family", "tune"), [*itertools.product(["flux", "z_image"], TUNED), ("flux2", "lora")])
def test_both_stages_and_images_have_the_same_bits(family, tune, tiny, folders, tmp_path, monkeypatch):
    words = [*TUNED[tune], SAVER, "optim.warmup=0", "memory.precision=bf16"]
    plain = both_stages(config(tiny, family, folders[family], tmp_path / "plain", *words))
    counts = watched(monkeypatch)
    swapped = both_stages(config(tiny, family, folders[family], tmp_path / "swapped", *words, SWAP))
    assert plain[0].keys() == swapped[0].keys() and len(plain[0]) > 10
    assert all(torch.equal(value, swapped[0][name]) for name, value in plain[0].items())
    assert torch.equal(plain[1], swapped[1])
    assert max(counts) == 2 and len(counts) > 20


def test_weights_come_for_their_turn_and_go_back_unchanged(tiny, folders, tmp_path):
    """Forward, recomputation from the last block to the first, and sampling, after which none is on the device."""
    cfg = config(tiny, "flux", folders["flux"], tmp_path, *TUNED["lora"], SAVER, SWAP)
    training, batch = training_of(cfg)
    trainer = training.trainer(COARSE, {})
    model, swap = trainer.bare, trainer.bare.backbone.swapped
    homes, order = [p.data for p in swapped_weights(model)], []
    before = [home.clone() for home in homes]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SwappedBlocks, "_wait", lambda self, i: order.append((i, sorted(self.home))))
        trainer.step(0, batch)
    assert [i for i, _ in order] == [0, 1, 2, 2, 1, 0], "the backward pass calls them again"
    assert all(i in held and len(held) <= 2 for i, held in order)
    assert not same(swapped_weights(model), homes), "the last blocks of the backward pass are still there"
    state = model.state_dict()
    assert same(swapped_weights(model), homes) and not swap.home, "a state dict holds main memory's"
    assert all(torch.equal(home, value) for home, value in zip(homes, before, strict=True))
    assert trainer.ema.model.backbone.swapped is swap and len(state) == len(trainer.ema.model.state_dict())
    with torch.no_grad():
        condition = model.condition(batch)
        model.denoise(torch.randn(len(batch), 4, 4, 4), torch.full((len(batch),), 500.0), condition)
    assert same(swapped_weights(model), homes)


def test_a_move_of_the_model_leaves_the_blocks_in_main_memory(tiny, folders, tmp_path):
    cfg = config(tiny, "flux", folders["flux"], tmp_path, *TUNED["lora"], SAVER, SWAP)
    _, model, _ = built(cfg, COARSE, tmp_path)
    held = swapped_weights(model)
    model.to("meta")
    assert {p.device.type for p in held} == {"cpu"} and held == swapped_weights(model)
    others = {p.device.type for name, p in model.named_parameters() if not any(p is one for one in held)}
    assert others == {"meta"}, "adapters and all other blocks have moved"


def test_a_copy_for_which_memory_runs_out_changes_nothing(tiny, folders, tmp_path, monkeypatch):
    cfg = config(tiny, "flux", folders["flux"], tmp_path, *TUNED["lora"], SAVER, SWAP)
    _, model, _ = built(cfg, COARSE, tmp_path)
    swap, homes = model.backbone.swapped, [p.data for p in swapped_weights(model)]
    made, empty_like = [], torch.empty_like

    def limited(*args, **settings):
        made.append(empty_like(*args, **settings))
        if len(made) == 3:
            raise torch.OutOfMemoryError("no room")
        return made[-1]

    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(torch, "empty_like", limited)
        swap.run(0, lambda x: x, torch.zeros(1))
    assert same(swapped_weights(model), homes) and not swap.home
    assert swap.run(0, lambda x: x, torch.zeros(1)).shape == (1,) and sorted(swap.home) == [0, 1]


@pytest.mark.long
@pytest.mark.parametrize("phase", [COARSE, VALIDATION, SAMPLING])
def test_a_plan_saves_the_blocks_but_for_two(phase, tiny, folders, tmp_path):
    peaks, size = [], 0
    for swap in (0, 3):
        more = [*TUNED["lora"], SAVER, f"memory.swap={swap}", "codec.tiling=0", "stage=coarse"]
        cfg = config(tiny, "flux", folders["flux"], tmp_path, *more)
        peaks.append(predict(cfg, "no", (phase,))[0].parts["weights"])
        if swap:
            size = sum(4 * p.numel() for p in swapped_weights(built(cfg, COARSE, tmp_path)[1]))
    assert peaks[0] - peaks[1] == pytest.approx(size, rel=0.1), "resident ones count as activations"


@pytest.mark.long
def test_the_whole_peak_of_a_plan_shrinks_by_all_but_two_blocks_at_most(tiny, folders, tmp_path):
    more = [*TUNED["lora"], SAVER, "stage=coarse", "stage.batch=1"]
    cfgs = [config(tiny, "flux", folders["flux"], tmp_path, *more, f"memory.swap={n}") for n in (0, 4)]
    whole, swapped = (predict(cfg, "no", (COARSE,))[0].bytes for cfg in cfgs)
    blocks = built(cfgs[1], COARSE, tmp_path)[1].backbone.swapped.weights
    sizes = sorted(sum(4 * p.numel() for p in weights) for weights in blocks)
    assert sum(sizes) > whole - swapped >= 0.9 * sum(sizes[:-2])


def test_a_unet_is_swapped_too(tiny, tmp_path, monkeypatch):
    folder = save_sd(tmp_path / "sd")
    plain = [word for word in tiny if not word.startswith(("backbone.", "text.", "hint."))]
    short = ["stage.batch=2", "stage.coarse.steps=2", "optim.warmup=0"]
    plain = [word for word in plain if word.partition("=")[0] not in {s.partition("=")[0] for s in short}]
    groups = ["backbone=sd15", f"backbone.source={folder}", "text=clip", "codec=kl", "diffusion=folder", "hint=lite_zero"]
    results = []
    counts = watched(monkeypatch)
    for swap in (0, 5):
        more = [*TUNED["lora"], SAVER, f"memory.swap={swap}", f"runs={tmp_path / str(swap)}"]
        training, batch = training_of(compose_config([*plain, *short, *groups, *more]))
        trainer = training.trainer(COARSE, {})
        _, changed = trained_twice(trainer, batch)
        results.append({name: p.detach() for name, p in trainer.bare.named_parameters() if name in changed})
    assert results[0].keys() == results[1].keys() and len(results[0]) > 10
    assert all(torch.equal(value, results[1][name]) for name, value in results[0].items())
    assert 0 < max(counts) <= 2


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([SWAP, "memory.tune=lora"], ("memory.swap=3", "memory.checkpointing=true")),
        ([SWAP, SAVER, "memory.tune=full"], ("memory.swap=3", "memory.tune=lora or frozen")),
        (["memory.swap=5", SAVER, "memory.tune=lora"], ("memory.swap=5", "has 4 blocks")),
        (["memory.swap=97", SAVER, "memory.tune=lora"], ("memory.swap=97", "from 0 to 96")),
        ([SWAP, SAVER, "memory.tune=lora", "memory.compile=true"], ("memory.swap=3", "memory.compile=false")),
    ],
)
def test_settings_that_do_not_go_together(more, says, tiny, folders, tmp_path, refused):
    refused(command.command_line, *overrides(tiny, "flux", folders["flux"], tmp_path, *more), says=says)
