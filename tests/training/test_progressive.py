"""stage.coarse.scale: stage 1 is trained and drawn at a fraction of the resolution, stage 2 starts from it enlarged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.experiment import run
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def config(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    words = [word for word in tiny if not word.startswith(("runs=", "stage.refine.coarse_input"))]
    return compose_config([*words, "stage.coarse.scale=2", f"runs={tmp_path_factory.mktemp('progressive')}"])


@pytest.fixture(scope="module")
def finished(config: DictConfig) -> RunFolder:
    return run(config)


def test_stage_1_is_drawn_small_and_handed_on_enlarged(config, finished):
    parts, pipeline = load_run(finished, config)
    examples = parts.examples("test")
    batch = collate([examples[0], examples[1]])
    recorded: dict[str, tuple] = {}
    sample = pipeline.sampler.sample

    def recording(model, given, noise, start=None, strength=1.0, **options):
        recorded["stage 1" if start is None else "stage 2"] = (given.image.shape, noise.shape, start, strength)
        return sample(model, given, noise, start, strength, **options)

    pipeline.sampler.sample = recording
    made = pipeline(batch)
    side, cell = batch.image.shape[-1], parts.codec.downscale
    assert recorded["stage 1"][0][-1] == side // 2 and recorded["stage 1"][1][-1] == side // 2 // cell
    assert recorded["stage 2"][0][-1] == side and recorded["stage 2"][1][-1] == side // cell
    assert recorded["stage 2"][3] == config.stage.refine.strength
    assert made.images["stage1"].shape == made.images["stage2"].shape == batch.image.shape
    torch.testing.assert_close(parts.codec.decode(recorded["stage 2"][2]), made.images["stage1"])
    steps = made.images["stage1"].diff(dim=-1)  # enlarged twofold by straight lines: every other one lies halfway
    halfway = (steps[..., 1:-2:2] + steps[..., 3::2]) / 2
    torch.testing.assert_close(steps[..., 2:-1:2], halfway, atol=2e-2, rtol=0)


def test_a_smaller_batch_holds_the_means_of_blocks(config, finished):
    examples = load_run(finished, config)[0].examples("test")
    batch = collate([examples[0], examples[1]])
    small = batch.smaller(2)
    assert batch.smaller(1) is batch
    for one, two in ((small.image, batch.image), (small.sketch, batch.sketch)):
        assert one.shape[-1] * 2 == two.shape[-1]
        torch.testing.assert_close(F.adaptive_avg_pool2d(two, 1), F.adaptive_avg_pool2d(one, 1))
        assert torch.equal(one[0, 0, 0, 0], two[0, 0, :2, :2].mean())
    assert small.labels.shape == small.image[:, 0].shape and small.captions == batch.captions


def test_another_scale_is_another_stage_1(config, finished):
    words = Path(finished.path / "config.yaml").read_text()
    assert "scale: 2" in words
    with pytest.raises(UserError, match=r"data.size=\d+: must be a multiple of \d+"):
        run(compose_config([f"runs={config.runs}", "data.size=64", "stage.coarse.scale=5", "logger=none"]))


@pytest.mark.parametrize("word", ["stage.refine.coarse_input=true", "memory.features=latents"])
def test_what_has_latents_of_one_size_is_refused(word):
    with pytest.raises(UserError, match="set stage.coarse.scale=1"):
        compose_config(["stage.coarse.scale=2", word])
