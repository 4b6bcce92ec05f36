"""Training of hint=controlnet on pretrained transformers: what changes, runs, resume, export, plan and bad input."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel, FluxTransformer2DModel, SD3ControlNetModel, SD3Transformer2DModel
from family_runs import CAPTIONS, CONTROLLED, built, config, overrides, save_all, trained_twice, training_of
from safetensors.torch import load_file, save_file
from test_transformer_controlnets import CONTROL, noised, opened
from tiny_sd import save_sd, unet

from ragaf_exp import run as command
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.export.kinds import Options
from ragaf_exp.export.trained import open_run
from ragaf_exp.export.write import export
from ragaf_exp.inference.load import load_run
from ragaf_exp.models.loading.starting import start_from_file
from ragaf_exp.plan.predict import predict
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.trainer import Trainer

FROZEN = [CONTROL, "memory.tune=frozen", "optim.warmup=0"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    return save_all(tmp_path_factory.mktemp("families"))


@pytest.mark.parametrize("family", CONTROLLED)
def test_a_step_changes_the_controlnet_alone(family, tiny, folders, tmp_path):
    training, batch = training_of(config(tiny, family, folders[family], tmp_path, *FROZEN))
    coarse = training.trainer(COARSE, {})
    before, _ = trained_twice(coarse, batch)
    trained_twice(coarse, batch)  # zeros follow one another: Z-Image's refiner moves at the third step
    changed = {name for name, p in coarse.bare.named_parameters() if not torch.equal(p, before[name])}
    assert {name for name in changed if not name.startswith("hint.net.")} == set()
    moved = {name.removeprefix("hint.net.") for name in changed}
    unmoved = {name.removeprefix("hint.net.") for name in before if name.startswith("hint.")} - moved
    assert all(LAST_TEXT.get(family, "nothing") in name for name in unmoved), "only what nothing reads stays"
    _, changed = trained_twice(training.trainer(REFINE, {COARSE: coarse.ema.model}), batch)
    assert not any(name.startswith(("hint.", "backbone.")) for name in changed) and changed


LAST_TEXT = {"sd3": "transformer_blocks.0.", "qwen_image": "transformer_blocks.0."}  # the text's update in the last block


@pytest.mark.long
@pytest.mark.parametrize("family", CONTROLLED)
def test_the_first_loss_is_that_without_a_sketch_to_the_bit_and_falls(family, tiny, folders, tmp_path):
    more = ["optim.warmup=0", "stage.coarse.steps=30", "stage.coarse.lr=0.003", "memory.tune=frozen"]
    more += ["task.sketch_dropout=0"]
    losses = {}
    for hint in (CONTROL, "hint=lite_zero"):
        training, batch = training_of(config(tiny, family, folders[family], tmp_path / hint, *more, hint))
        trainer = training.trainer(COARSE, {})
        for step in range(30 if hint == CONTROL else 1):
            trainer.step(step, batch)
        losses[hint] = [float(row["loss"]) for row in trainer.metrics_logger.recent]
    assert losses[CONTROL][0] == losses["hint=lite_zero"][0]
    first, last = losses[CONTROL][:10], losses[CONTROL][-10:]
    assert sum(last) < 0.95 * sum(first), (first, last)


@pytest.mark.parametrize("family", CONTROLLED)
def test_checkpointing_leaves_the_weights(family, tiny, folders, tmp_path):
    weights = []
    for on in (False, True):
        more = [*FROZEN, f"memory.checkpointing={on}"]
        training, batch = training_of(config(tiny, family, folders[family], tmp_path / str(on), *more))
        trainer = training.trainer(COARSE, {})
        opened(trainer.bare.hint)
        assert trainer.bare.hint.net.is_gradient_checkpointing == on
        _, changed = trained_twice(trainer, batch)
        weights.append({name: p.detach() for name, p in trainer.bare.named_parameters() if name in changed})
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.process
@pytest.mark.parametrize("family", CONTROLLED)
def test_both_stages_resume_export_and_start_again(family, tiny, folders, tmp_path, cli, monkeypatch):
    """An interrupted run ends with the undisturbed one's bytes; diffusers loads the export, and hint.source= too."""
    more = [*FROZEN, "data.size=32", "sampler.steps=2", "eval.pictures=0", "memory.checkpointing=true"]
    words = overrides(tiny, family, folders[family], tmp_path / "runs", *more)
    assert cli(command.command_line, *words)[0] == 0
    folder = run(compose_config(words)).path
    other = [*(word for word in words if not word.startswith("runs=")), f"runs={tmp_path / 'again'}"]
    interrupt(monkeypatch, other)
    again = run(compose_config(other)).path
    assert weights_of(again) == weights_of(folder) and len(weights_of(folder)) >= 4
    names = load_file(sorted((folder / "checkpoints" / "coarse").iterdir())[-1] / "model.safetensors")
    assert names and all(name.startswith("hint.net.") for name in names), "the source's weights are not copied"

    out = tmp_path / "export"
    export(open_run(str(folder), {}), out, ["controlnet"], Options(), "")
    _, pipeline = load_run(*RunFolder.read(folder))
    model = pipeline.models["coarse"]
    theirs = type(model.hint.net).from_pretrained(out / "controlnet")
    state = model.hint.net.state_dict()
    assert theirs.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in theirs.state_dict().items())
    readme = (out / "README.md").read_text()
    assert f"{type(theirs).__name__}.from_pretrained(" in readme and hasattr(diffusers, type(theirs).__name__)

    cfg = config(tiny, family, folders[family], tmp_path, CONTROL, f"hint.source={out / 'controlnet'}")
    _, started, batch = built(cfg, COARSE, tmp_path)
    assert started.hint.source is not None
    (x_t, t), sketch = noised(), batch.sketch
    text = started.text(CAPTIONS)
    with torch.no_grad():
        ours, again = (residuals(m.hint, sketch, x_t, t, text) for m in (model, started))
    assert ours.keys() == again.keys() and all(torch.equal(ours[point], again[point]) for point in ours)
    assert any(value.any() for value in ours.values())


def residuals(hint: Any, sketch: Any, x_t: Any, t: Any, text: Any) -> dict[str, torch.Tensor]:
    return hint.at(hint(hint.features(sketch), torch.tensor([True, True])), x_t, t, text)


def interrupt(monkeypatch: Any, words: list[str]) -> None:
    """Stop a run after its first step."""
    step = Trainer.step

    def signalled(self, number, batch):
        step(self, number, batch)
        if (self.plan.stage, number) == (COARSE, 0):
            os.kill(os.getpid(), signal.SIGUSR1)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="the same command continues"):
        patch.setattr(Trainer, "step", signalled)
        run(compose_config(words))


def weights_of(folder: Path) -> dict[str, bytes]:
    """The last checkpoints, file by file."""
    newest = [sorted((folder / "checkpoints" / stage).iterdir())[-1] for stage in (COARSE, REFINE)]
    return {str(p.relative_to(folder)): p.read_bytes() for path in newest for p in path.glob("*.safetensors")}


@pytest.mark.long
@pytest.mark.parametrize("family", CONTROLLED)
def test_a_plan_counts_the_copied_blocks(family, tiny, folders, tmp_path):
    peaks, sizes = [], []
    for layers in (1, 2):
        cfg = config(tiny, family, folders[family], tmp_path, *FROZEN, f"hint.layers={layers}", "optim=adamw")
        peaks.append(predict(cfg, "no", (COARSE,))[0])
        with torch.device("meta"):
            sizes.append(sum(p.numel() for p in built(cfg, COARSE, tmp_path)[1].hint.parameters()))
    added = 4 * (sizes[1] - sizes[0])  # bytes
    assert peaks[1].parts["weights"] - peaks[0].parts["weights"] == pytest.approx(added, rel=0.4) and added > 10_000
    assert peaks[1].bytes - peaks[0].bytes >= 3 * added, "weights, two moments, and activations"


def test_settings_for_copies_do_not_change_older_hashes(tiny):
    words = [word for word in tiny if not word.startswith("hint.")]
    cfg, other = (compose_config([*words, CONTROL, "hint.channels=[16,32,64]", *more]) for more in ([], ["hint.layers=2"]))
    assert config_hash(cfg) != config_hash(other)
    del cfg.hint["layers"], cfg.hint["single_layers"]
    assert config_hash(cfg) == config_hash(compose_config([*words, CONTROL, "hint.channels=[16,32,64]", "hint.layers=0"]))


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("sd3", ["hint.layers=9"], ("hint.layers=9", "has 3 such blocks", "at most 3")),
        ("sd3", ["hint.layers=97"], ("hint.layers=97", "from 0 to 96")),
        ("flux", ["hint.single_layers=5"], ("hint.single_layers=5", "at most 2")),
        ("z_image", ["hint.single_layers=1"], ("hint.single_layers=1", "only Flux", "hint.single_layers=0")),
        ("flux", ["hint.source=nowhere/"], ("hint.source=nowhere", "no such folder")),
    ],
)
def test_numbers_that_do_not_fit(family, more, says, tiny, folders, tmp_path, refused):
    refused(command.command_line, *overrides(tiny, family, folders[family], tmp_path, CONTROL, *more), says=says)


def test_a_controlnet_of_another_family_or_width(tiny, folders, tmp_path, refused):
    flux = diffusers.FluxControlNetModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4),
    )  # fmt: skip
    flux.save_pretrained(tmp_path / "narrow")
    ControlNetModel.from_unet(unet()).save_pretrained(tmp_path / "unet")
    cases = (
        ("sd3", "narrow", ("is a FluxControlNetModel", "takes a SD3ControlNetModel")),
        ("flux", "unet", ("is a ControlNetModel", "takes a FluxControlNetModel")),
        ("flux", "narrow", ("its num_attention_heads is 2", "needs 4", "a ControlNet made for this backbone")),
    )
    for family, name, says in cases:
        source = f"hint.source={tmp_path / name}"
        words = overrides(tiny, family, folders[family], tmp_path, CONTROL, source)
        refused(command.command_line, *words, says=(source, *says))


def test_positions_for_fewer_cells_than_the_latents_have(tiny, folders, tmp_path, refused):
    c = SD3Transformer2DModel.from_pretrained(folders["sd3"], subfolder="transformer").config
    names = ("in_channels", "num_attention_heads", "attention_head_dim", "joint_attention_dim", "pooled_projection_dim",
             "caption_projection_dim", "qk_norm")  # fmt: skip
    net = SD3ControlNetModel(**{name: c[name] for name in names}, num_layers=1, sample_size=4, pos_embed_max_size=2)
    net.save_pretrained(tmp_path / "small")
    more = [CONTROL, f"hint.source={tmp_path / 'small'}", "data.size=64"]
    says = ("hint.source=", "positions for 4 rows", "at most 32")
    refused(command.command_line, *overrides(tiny, "sd3", folders["sd3"], tmp_path, *more), says=says)


def test_backbones_without_a_controlnet_name_the_hints_that_they_have(tiny, tmp_path, refused):
    plain = [word for word in tiny if not word.startswith(("backbone.", "hint."))]
    small = ["backbone.width=32", "backbone.depth=1", "backbone.heads=2", f"runs={tmp_path}"]
    says = ("hint=controlnet", "DiT", "hint=lite, lite_zero or tokens")
    refused(command.command_line, *plain, "backbone=dit", *small, CONTROL, says=says)


def test_a_unets_encoder_is_copied_whole(tiny, tmp_path, refused):
    plain = [word for word in tiny if not word.startswith(("backbone.", "text.", "hint."))]
    groups = ["backbone=sd15", f"backbone.source={save_sd(tmp_path / 'sd')}", "text=clip", "codec=kl", "diffusion=folder"]
    words = [*plain, *groups, CONTROL, "hint.layers=2", f"runs={tmp_path}"]
    refused(command.command_line, *words, says=("hint.layers=2", "copied whole", "hint.layers=0"))


def test_a_single_file_by_diffusers_names(tiny, folders, tmp_path):
    """As hint.source=, and as init=, which starts the ControlNet and leaves the transformer."""
    _, model, _ = built(config(tiny, "flux", folders["flux"], tmp_path, CONTROL), COARSE, tmp_path)
    state = opened(model.hint).net.state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "control.safetensors")
    cfg = config(tiny, "flux", folders["flux"], tmp_path, CONTROL, f"hint.source={tmp_path / 'control.safetensors'}")
    assert all(torch.equal(state[k], v) for k, v in built(cfg, COARSE, tmp_path)[1].hint.net.state_dict().items())
    _, fresh, _ = built(config(tiny, "flux", folders["flux"], tmp_path, CONTROL), COARSE, tmp_path)
    with torch.no_grad():
        for parameter in fresh.hint.parameters():
            parameter.zero_()
    start_from_file(fresh, tmp_path / "control.safetensors", "init=control.safetensors")
    assert all(torch.equal(state[k], v) for k, v in fresh.hint.net.state_dict().items())
    theirs = FluxTransformer2DModel.from_pretrained(folders["flux"], subfolder="transformer").state_dict()
    assert all(torch.equal(theirs[name], value) for name, value in fresh.backbone.net.state_dict().items())
