"""Starting stage 1 from a file made elsewhere: what fits is taken, and one line names the rest."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from tiny_sd import controlnet, save_sd
from torch import nn

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.export.lora import in_kohya
from ragaf_exp.models.backbones.stable_diffusion import StableUNet
from ragaf_exp.models.loading import ldm
from ragaf_exp.models.loading.starting import start_from_file
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

CHANNELS = (4, 8, 8, 8)


class Networks(nn.Module):
    """A backbone and perhaps a ControlNet, as a model has them."""

    def __init__(self, backbone: StableUNet, control: bool = False):
        super().__init__()
        self.backbone = backbone
        if control:
            self.hint = controlnet(backbone, 8, 8, channels=CHANNELS)


@pytest.fixture(scope="module")
def sd(tmp_path_factory) -> Path:
    return save_sd(tmp_path_factory.mktemp("sd") / "sd")


@pytest.fixture
def other(sd) -> UNet2DConditionModel:
    """A UNet of the same architecture with other weights."""
    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet")
    torch.manual_seed(1)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.1)
    return unet


def networks(sd: Path, control: bool = False) -> Networks:
    width = UNet2DConditionModel.load_config(sd / "unet")["cross_attention_dim"]
    return Networks(StableUNet(4, width, source=str(sd)), control)


def write(path: Path, state: dict[str, torch.Tensor], prefix: str = "") -> Path:
    save_file({f"{prefix}{name}": value.detach().contiguous() for name, value in state.items()}, path)
    return path


@pytest.mark.parametrize("layout", ["original", "diffusers", "own"])
def test_a_checkpoint_starts_the_backbone(layout, sd, other, tmp_path):
    model, state = networks(sd, control=True), other.state_dict()
    if layout == "original":
        names = ldm.unet_names(state)
        file = write(tmp_path / "whole.safetensors", {names[name]: value for name, value in state.items()}, ldm.UNET)
    else:
        file = write(tmp_path / "unet.safetensors", state, "backbone.unet." if layout == "own" else "")
    control = {name: value.clone() for name, value in model.hint.state_dict().items()}
    line = start_from_file(model, file, "init=file")
    assert line.startswith(f"{len(state)} of {len(model.state_dict())} tensors taken") and "not used" not in line
    assert all(torch.equal(value, state[name]) for name, value in model.backbone.unet.state_dict().items())
    assert all(torch.equal(value, control[name]) for name, value in model.hint.state_dict().items())
    assert {f"unet.{name}" for name in state} <= model.backbone.changed, "checkpoints must hold what was taken"


def test_tensors_of_other_shapes_are_named(sd, other, tmp_path):
    state = other.state_dict()
    state["conv_out.bias"] = torch.zeros(9)
    state["extra.weight"] = torch.zeros(2)
    model = networks(sd)
    before = model.backbone.unet.conv_out.bias.clone()
    line = start_from_file(model, write(tmp_path / "unet.safetensors", state), "init=file")
    assert line.startswith(f"{len(state) - 2} of {len(state) - 1} tensors taken; not in it: backbone.unet.conv_out.bias")
    assert "not used: conv_out.bias, extra.weight" in line and "\n" not in line
    assert torch.equal(model.backbone.unet.conv_out.bias, before)


@pytest.mark.parametrize("layout", ["original", "diffusers"])
def test_a_controlnet_starts_the_hint_alone(layout, sd, other, tmp_path):
    trained = ControlNetModel.from_unet(other, conditioning_embedding_out_channels=CHANNELS)
    for parameter in trained.parameters():
        nn.init.normal_(parameter, std=0.1)
    state, model = trained.state_dict(), networks(sd, control=True)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    names = ldm.controlnet_names(state) if layout == "original" else {name: name for name in state}
    prefix = ldm.CONTROLNET if layout == "original" else ""
    file = write(tmp_path / "control.safetensors", {names[name]: value for name, value in state.items()}, prefix)
    start_from_file(model, file, "init=file")
    assert all(torch.equal(value, state[name]) for name, value in model.hint.net.state_dict().items())
    assert all(torch.equal(value, before[name]) for name, value in model.backbone.state_dict().items())
    with pytest.raises(UserError, match="none of its"):
        start_from_file(networks(sd), file, "init=file")


def lora(sd: Path, rank: int, folder: Path) -> Path:
    """A LoRA of the tiny UNet in kohya's layout, with an alpha of twice its rank."""
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet")
    names = [name for name, _ in unet.named_modules() if name.endswith(("to_q", "to_k", "to_v", "to_out.0"))]
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=names))
    for name, parameter in unet.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.05)
    state = in_kohya({k: v.detach().contiguous() for k, v in get_peft_model_state_dict(unet).items()})
    state = {name: 2 * value if name.endswith(".alpha") else value for name, value in state.items()}
    return write(folder / "lora.safetensors", state)


@torch.no_grad()
def predict(model: Networks) -> torch.Tensor:
    unet, generator = model.backbone.unet.eval(), torch.Generator().manual_seed(0)
    x, text = (torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1, 5, unet.config.cross_attention_dim)))
    return unet(x, torch.tensor([9]), text).sample


def test_a_lora_becomes_the_adapters_of_its_rank_and_is_merged_otherwise(sd, tmp_path):
    file = lora(sd, 4, tmp_path)
    adapted, merged, other_rank, plain = (networks(sd) for _ in range(4))
    adapted.backbone.add_lora(4, "all")
    other_rank.backbone.add_lora(2, "all")
    lines = [start_from_file(model, file, "init=file") for model in (adapted, merged, other_rank)]
    names = [name for name, _ in merged.backbone.unet.named_modules()]
    count = sum(name.endswith(("to_q", "to_k", "to_v", "to_out.0")) for name in names)
    assert lines[0] == f"{count} of {count} LoRA layers taken, {count} as adapters and 0 merged"
    assert lines[1] == lines[2] == f"{count} of {count} LoRA layers taken, 0 as adapters and {count} merged"
    for model in (merged, other_rank):
        torch.testing.assert_close(predict(model), predict(adapted), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(predict(merged), predict(plain), atol=1e-4)
    assert any(name.endswith("to_q.weight") for name in merged.backbone.changed)


def test_a_file_of_something_else_is_one_line(sd, tmp_path):
    with pytest.raises(UserError, match="none of its 1 tensors fits") as caught:
        start_from_file(networks(sd), write(tmp_path / "a.safetensors", {"a": torch.zeros(2)}), "init=a")
    assert "\n" not in str(caught.value)
    bad = write(tmp_path / "b.safetensors", {"lora_unet_x.lora_down.weight": torch.zeros(2, 3),
                                             "lora_unet_x.lora_up.weight": torch.zeros(3, 2)})  # fmt: skip
    with pytest.raises(UserError, match="none of its 1 layers fits"):
        start_from_file(networks(sd), bad, "init=b")


@pytest.mark.long
def test_a_run_starts_from_a_file(tiny, finished, tmp_path, caplog):
    words = [word for word in tiny if not word.startswith("stage")]
    checkpoint = load_newest(RunFolder(finished).checkpoints, "coarse", parts=("ema",))
    file = write(tmp_path / "weights.safetensors", checkpoint.ema)
    words += ["stage=coarse", "stage.coarse.steps=2", f"init={file}", f"runs={tmp_path}"]
    cfg = compose_config(words)
    with caplog.at_level(logging.INFO):
        model = Training(cfg, RunFolder.create(cfg)).trainer("coarse", {}).bare
    (line,) = [record.getMessage() for record in caplog.records if "tensors taken" in record.getMessage()]
    assert line.startswith(f"stage coarse: init={file}: {len(checkpoint.ema)} of ")
    assert all(torch.equal(value, checkpoint.ema[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("init", "stage", "says"), [
    ("gone.safetensors", "coarse", "no such file"), ("gone.safetensors", "refine", "no such file"),
    ("cut.safetensors", "coarse", "damaged"), ("cut.safetensors", "refine", "starts stage 1"),
])  # fmt: skip
def test_a_wrong_file_is_one_line_before_any_work(tiny, tmp_path, init, stage, says):
    (tmp_path / "cut.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=says) as caught:
        run(compose_config([*tiny, f"stage={stage}", f"init={tmp_path / init}", f"runs={tmp_path}"]))
    assert "\n" not in str(caught.value)
