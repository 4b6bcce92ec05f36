"""One line for input that does not fit an editing transformer, and LoRA files merged into transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from editing_runs import built, config, edits, save_all
from safetensors.torch import save_file
from tiny_families import save_flux, save_qwen_image

from ragaf_exp import run
from ragaf_exp.config.schema import COARSE
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.training import Training
from ragaf_exp.models.loading.merging import merge_lora
from ragaf_exp.runs.folder import RunFolder

REMOVE = ["task=remove", "data=removal"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("editors")
    others = {"flux": save_flux(root / "flux"), "qwen_image": save_qwen_image(root / "qwen_image")}
    return save_all(root) | others


@pytest.mark.parametrize(
    ("option", "of", "says"),
    [
        ("flux_fill", "flux_kontext", ("takes 16 channels", "no hole", "backbone=flux or flux_kontext")),
        ("flux_kontext", "flux_fill", ("takes 288 channels", "backbone=flux_fill")),
        ("flux", "flux_fill", ("takes 288 channels", "backbone=flux_fill")),
        ("qwen_image_edit", "flux_kontext", ("FluxTransformer2DModel", "take backbone=flux")),
        ("flux_kontext", "qwen_image_edit", ("QwenImageTransformer2DModel", "take backbone=qwen_image")),
        ("qwen_image_edit", "qwen_image", ("no folder processor", "backbone=qwen_image")),
    ],
)
def test_a_folder_of_another_family(option, of, says, tiny, folders, tmp_path, refused):
    refused(run.command_line, *edits(tiny, option, folders[of], tmp_path, *REMOVE), says=(str(folders[of]), *says))


@pytest.mark.parametrize(
    ("family", "missing", "says"),
    [
        ("flux_fill", "text_encoder_2", ("text_encoder_2/config.json",)),
        ("flux_kontext", "text_encoder/model.safetensors", ("text_encoder", "no weights")),
        ("qwen_image_edit", "text_encoder", ("text_encoder/config.json",)),
        ("qwen_image_edit_plus", "processor/processor_config.json", ("processor", "can't be loaded")),
        ("qwen_image_edit", "tokenizer", ("no tokenizer",)),
    ],
)
def test_an_incomplete_folder(family, missing, says, tiny, folders, tmp_path, refused):
    folder = shutil.copytree(folders[family], tmp_path / "folder")
    path = folder / missing
    path.unlink() if path.is_file() else shutil.rmtree(path)
    refused(run.command_line, *edits(tiny, family, folder, tmp_path, *REMOVE), says=(str(folder), *says))


@pytest.mark.parametrize("family", ["flux_fill", "qwen_image_edit"])
def test_weights_of_another_width(family, tiny, folders, tmp_path, refused):
    """Its config.json promises wider attention than its weights have."""
    folder = shutil.copytree(folders[family], tmp_path / "folder")
    path = folder / "transformer/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 6}))
    refused(run.command_line, *edits(tiny, family, folder, tmp_path, *REMOVE), says=(str(folder), "fetch it again"))


@pytest.mark.parametrize(
    ("family", "more", "says"),
    [
        ("flux_fill", ["data.size=40", *REMOVE], ("data.size=40", "multiple of 16")),
        ("flux_fill", [], ("task", "inpaint, insert, remove")),
        ("qwen_image_edit", [], ("task", "inpaint, insert, remove")),
        ("flux_fill", ["codec=pixel", *REMOVE], ("latent channels", "codec gives 48")),
        ("qwen_image_edit", ["text.image_side=9999", *REMOVE], ("text.image_side", "0 to 4,096")),
    ],
)
def test_settings_that_do_not_fit(family, more, says, tiny, folders, tmp_path, refused):
    refused(run.command_line, *edits(tiny, family, folders[family], tmp_path, *more), says=says)


def test_holes_of_every_step_are_not_cached(tiny, folders, tmp_path):
    """The text encoder reads the image with the hole, which training generates at each step."""
    more = ["task=inpaint", "memory.features=all"]
    cfg = config(tiny, "qwen_image_edit", folders["qwen_image_edit"], tmp_path, *more)
    training = Training(cfg, RunFolder.create(cfg))
    with pytest.raises(UserError, match="differs from step to step, and the text encoder reads it"), training.started():
        pass


def test_kontext_without_an_image_is_text_to_image(tiny, folders, tmp_path):
    _, model, batch = built(config(tiny, "flux_kontext", folders["flux_kontext"], tmp_path), COARSE, tmp_path)
    c = model.condition(batch)
    assert c.source is None and model.denoise(torch.randn(2, 4, 8, 8), torch.ones(2), c).value.isfinite().all()


def test_a_lora_merges_into_its_family_alone(tiny, folders, tmp_path):
    """A file as the pipelines write it; the same file for another family is refused."""
    networks = {}
    for family in ("qwen_image_edit", "flux_kontext"):
        cfg = config(tiny, family, folders[family], tmp_path, *REMOVE)
        networks[family] = built(cfg, COARSE, tmp_path)[1].backbone
    layer, name = networks["qwen_image_edit"].net.transformer_blocks[2].attn.to_q, "transformer_blocks.2.attn.to_q"
    down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
    file = tmp_path / "lora.safetensors"
    save_file({f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}, file)
    before = layer.weight.detach().clone()
    merge_lora(networks["qwen_image_edit"], str(file), 0.5)
    torch.testing.assert_close(layer.weight, before + 0.5 * up @ down)
    assert networks["qwen_image_edit"].changed == {f"net.{name}.weight"}
    with pytest.raises(UserError, match="is not in this backbone; use a LoRA made for it"):
        merge_lora(networks["flux_kontext"], str(file), 1.0)
