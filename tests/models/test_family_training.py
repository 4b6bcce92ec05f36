"""Training of pretrained transformers: what changes, checkpointing, and adapters that the family's pipeline loads."""

from __future__ import annotations

from copy import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from family_runs import CAPTIONS, FAMILIES, config, pipeline_of, save_all, trained_twice, training_of

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.data.loader import collate
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.loading.tuning import save_lora
from ragaf_exp.runs.folder import RunFolder


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("tune", ["frozen", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_changes_what_is_trained_and_nothing_else(family, tune, tiny, folders, tmp_path):
    cfg = config(tiny, family, folders[family], tmp_path, f"memory.tune={tune}", "memory.lora_rank=2", "optim.warmup=0")
    training, batch = training_of(cfg)
    coarse = training.trainer(COARSE, {})
    for stage in (COARSE, REFINE):
        before, changed = trained_twice(
            coarse if stage == COARSE else training.trainer(REFINE, {COARSE: coarse.ema.model}), batch
        )
        backbone = {name for name in changed if name.startswith("backbone.")}
        lora = {name for name in before if ".lora_" in name}
        assert bool(lora) == (tune == "lora") and backbone <= lora
        assert {name for name in lora if ".lora_B." in name} <= backbone | LAST_TEXT.get(family, set()) or tune == "frozen"
        assert any(name.startswith("ragaf.") for name in changed) == (stage == REFINE)
        assert any(name.startswith("hint.") for name in changed) == (stage == COARSE)
        assert not any(name.startswith("text.") for name in before), "the encoders are no part of the model"


LAST = "backbone.net.transformer_blocks.2.attn"
LAST_TEXT = {  # adapters of the text's update in the last block, which nothing reads
    "sd3": {f"{LAST}.add_q_proj.lora_B.default.weight"},
    "qwen_image": {f"{LAST}.{name}.lora_B.default.weight" for name in ("add_q_proj", "to_add_out")},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpointing_leaves_the_gradients(family, tiny, folders, tmp_path):
    more = ["memory.tune=lora", "memory.lora_rank=2", "hint.zero_init=false"]
    plain, saved = (
        weights_after(config(tiny, family, folders[family], tmp_path / str(on), *more, f"memory.checkpointing={on}"))
        for on in (False, True)
    )
    assert plain.keys() == saved.keys() and any(".lora_" in name for name in plain)
    for name, value in plain.items():
        torch.testing.assert_close(value, saved[name], rtol=1e-4, atol=1e-6, msg=name)


def weights_after(cfg: Any) -> dict[str, torch.Tensor]:
    """The trained weights after two steps of stage 1."""
    training = Training(cfg, RunFolder.create(cfg))
    batch = collate([training.train_examples[i] for i in range(2)])
    trainer = training.trainer(COARSE, {})
    for step in range(2):
        trainer.step(step, batch)
    return {name: p.detach().clone() for name, p in trainer.bare.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_familys_pipeline_loads_the_lora(family, tiny, folders, tmp_path):
    more = ["memory.tune=lora", "memory.lora_rank=2", "stage.coarse.lr=0.05", "optim.warmup=0", "hint.zero_init=true"]
    cfg = config(tiny, family, folders[family], tmp_path, *more)
    training = Training(cfg, RunFolder.create(cfg))
    trainer = training.trainer(COARSE, {})
    trainer.step(0, collate([training.train_examples[i] for i in range(2)]))
    model = trainer.bare.eval()
    theirs = pipeline_of(folders[family])
    transformer = theirs.transformer
    theirs.load_lora_weights(save_lora(model, tmp_path / "lora"))
    ours, tuned = model.backbone, copy(model.backbone)
    tuned._modules = {**ours._modules, "net": transformer}
    x, t, text = torch.randn(2, 4, 4, 4), torch.full((2,), 500.0), model.text(CAPTIONS)
    with torch.no_grad():
        after, wanted = tuned(x, t, text, {}), ours(x, t, text, {})
        theirs.unload_lora_weights()
        before = tuned(x, t, text, {})
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    assert (before - after).abs().max() > 1e-4
