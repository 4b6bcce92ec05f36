"""Training of editing transformers: what changes, what the tasks show them, adapters, and the cache of their text."""

from __future__ import annotations

from copy import copy
from pathlib import Path

import pytest
import torch
from editing_runs import CAPTIONS, EDITORS, built, config, edits, save_all
from family_runs import pipeline_of, trained_twice, training_of

from ragaf_exp import run
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.models.inputs import ALL
from ragaf_exp.models.loading.tuning import save_lora

DATA = {"inpaint": "scenes", "remove": "removal", "insert": "insertion", "white_balance": "casts", "paint": "scenes"}
LAST = "backbone.net.transformer_blocks.2.attn"
UNREAD = {f"{LAST}.{name}.lora_B.default.weight" for name in ("add_q_proj", "to_add_out")}  # the text's last update


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("editors"))


def of_task(task: str) -> list[str]:
    return [f"task={task}", f"data={DATA[task]}"]


@pytest.mark.parametrize("family", EDITORS)
def test_a_step_changes_what_is_trained_and_nothing_else(family, tiny, folders, tmp_path):
    more = ["memory.tune=lora", "memory.lora_rank=2", "optim.warmup=0", "task.caption_dropout=0.5"]
    training, batch = training_of(config(tiny, family, folders[family], tmp_path, *of_task("remove"), *more))
    coarse = training.trainer(COARSE, {})
    for stage in (COARSE, REFINE):
        before, changed = trained_twice(
            coarse if stage == COARSE else training.trainer(REFINE, {COARSE: coarse.ema.model}), batch
        )
        lora = {name for name in before if ".lora_" in name}
        backbone = {name for name in changed if name.startswith("backbone.")}
        assert lora and backbone <= lora
        assert {name for name in lora if ".lora_B." in name} - backbone <= UNREAD
        assert any(name.startswith("ragaf.") for name in changed) == (stage == REFINE)
        assert any(name.startswith(("hint.", "extra_in.")) for name in changed) == (stage == COARSE)


SHOWN = [(family, task) for family in ("flux_kontext", "flux_fill") for task in DATA] + [("qwen_image_edit", "insert")]


@pytest.mark.parametrize(("family", "task"), SHOWN)
def test_every_task_shows_its_image(family, task, tiny, folders, tmp_path):
    """The prediction depends on the image that the task gives, with every trained layer still at zero."""
    _, model, batch = built(config(tiny, family, folders[family], tmp_path, *of_task(task)), COARSE, tmp_path)
    x_t, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([900.0, 300.0])
    source = model.inputs.source(batch, ALL)
    assert source.image.shape[2:] == (64, 64 * model.inputs.spread) and source.hole.shape[1] == 1
    conditions = {name: x.flip(3) * 0.5 if x.shape[1] == 3 else x for name, x in batch.conditions.items()}
    other = type(batch)(**{**vars(batch), "conditions": conditions})
    with torch.no_grad():
        ours, theirs = (model.denoise(x_t, t, model.condition(given)).value for given in (batch, other))
    assert ours.shape == x_t.shape
    whole = bool((source.hole > 0).all())  # then Fill sees grey alone
    assert ((ours - theirs).abs().amax((1, 2, 3)) > 1e-4).all() != (whole and family == "flux_fill")


@pytest.mark.parametrize("family", EDITORS)
def test_the_familys_pipeline_loads_the_lora(family, tiny, folders, tmp_path):
    more = ["memory.tune=lora", "memory.lora_rank=2", "stage.coarse.lr=0.05", "optim.warmup=0", "hint.zero_init=true"]
    training, batch = training_of(config(tiny, family, folders[family], tmp_path, *of_task("remove"), *more))
    trainer = training.trainer(COARSE, {})
    trainer.step(0, batch)
    model, theirs = trainer.bare.eval(), pipeline_of(folders[family])
    theirs.load_lora_weights(save_lora(model, tmp_path / "lora"))
    ours, tuned = model.backbone, copy(model.backbone)
    tuned._modules = {**ours._modules, "net": theirs.transformer}
    c, t = model.condition(batch), torch.full((2,), 500.0)
    x = torch.cat([torch.randn(2, 4, 8, 8), c.source], dim=1)
    with torch.no_grad():
        after, wanted = tuned(x, t, c.text, {}), ours(x, t, c.text, {})
        theirs.unload_lora_weights()
        before = tuned(x, t, c.text, {})
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-5)
    assert (before - after).abs().max() > 1e-4


@pytest.mark.long
@pytest.mark.parametrize("family", EDITORS)
def test_both_stages_from_the_command_line(family, tiny, folders, tmp_path, cli):
    """64x64 scenes with text from the feature cache, LoRA, both stages, evaluation and report."""
    more = [*of_task("remove"), "memory.tune=lora", "memory.lora_rank=2", "memory.features=all", "sampler.steps=2",
            "eval.pictures=0"]  # fmt: skip
    status, _, err = cli(run.command_line, *edits(tiny, family, folders[family], tmp_path, *more))
    assert status == 0, err
    (folder,) = (path for path in (tmp_path / "tiny").iterdir() if path.is_dir() and not path.is_symlink())
    assert (folder / "metrics.json").is_file() and (folder / "report.html").stat().st_size > 10_000
    for stage in ("coarse", "refine"):
        assert (folder / "lora" / stage / "pytorch_lora_weights.safetensors").is_file()


QWEN = [family for family in EDITORS if family.startswith("qwen")]


@pytest.mark.parametrize(("family", "task"), list(zip(QWEN, ("insert", "remove"), strict=True)))
def test_cached_text_equals_encoded_text(family, task, tiny, folders, tmp_path):
    """Tokens of caption and image, which insertion makes twice as wide, per item, with captions that are dropped."""
    cfg = config(tiny, family, folders[family], tmp_path, *of_task(task), "memory.features=all")
    training, batch = training_of(cfg)
    with training.started():
        cached = training.to_batch([training.train_examples[i] for i in range(2)])
    model = training.trainer(COARSE, {}).bare
    keep = {"text": torch.tensor([True, False])}
    ours, theirs = (model.condition(given, keep).text for given in (cached, batch))
    assert cached.text is not None and batch.text is None and ours.image.shape[1] > 4
    for name in ("tokens", "mask"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name)), name
    torch.testing.assert_close(ours.image, theirs.image, rtol=1e-4, atol=1e-5)  # which precede the caption in causal order
    assert not torch.equal(ours.image[0], ours.image[1]), "each item has an image"
    for row in (cached.rows(slice(1, 2)), cached.rows(slice(0, 1))):
        assert len(model.condition(row).text.tokens) == 1


@pytest.mark.parametrize("family", QWEN)
def test_spans_name_the_words_of_the_tokens(family, tiny, folders, tmp_path):
    _, model, batch = built(config(tiny, family, folders[family], tmp_path, *of_task("inpaint")), COARSE, tmp_path)
    text = model.condition(batch).text
    spans = model.text.token_spans(CAPTIONS[0])
    assert len(spans) == text.tokens.shape[1] == text.mask.shape[1]
    words = [CAPTIONS[0][low:high] for low, high in spans if high > low]
    assert "".join(words) == CAPTIONS[0].replace(" ", "") and "blue" in words
    assert model.text(CAPTIONS).tokens.shape == text.tokens.shape, "region prompts are encoded without an image"
    assert (model.text(CAPTIONS).tokens - text.tokens)[:, 0].abs().amax(1).min() > 1e-4, "a caption's tokens see the image"
