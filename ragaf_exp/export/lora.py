"""Kind `lora`: LoRA of a UNet in the layout of kohya's sd-scripts, which UIs read, and in that of diffusers."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import StableDiffusionPipeline
from diffusers.utils import convert_state_dict_to_diffusers
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from torch import Tensor

from ragaf_exp.core.tensor_files import lazy, write_tensors
from ragaf_exp.export.kinds import CheckFailed, Entry, Options, Unsuitable
from ragaf_exp.export.lora_families import in_sd_scripts
from ragaf_exp.export.metadata import ARCHITECTURES, DIFFUSERS, family_texts, modelspec
from ragaf_exp.export.networks import check_file, chosen, require_pretrained_unet, write_preview
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.models.backbones.pretrained_transformer import PretrainedTransformer

KIND, FOLDER, FILE = "lora", "lora", "pytorch_lora_weights.safetensors"
PREFIXES = ("backbone.unet.", "backbone.net.")
BASES = {"stable-diffusion-v1": "sd_v1", "stable-diffusion-v2": "sd_v2"}  # modelspec -> sd-scripts
USAGE = "Load at strength 1. It was trained with region tokens, which other tools do not have."


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write both files.

    Args:
        trained: The run.
        out: The export's folder.
        options: half and stage are used.

    Returns:
        Their entries.

    Raises:
        Unsuitable: The run has no LoRA of a UNet that other tools have.
    """
    stage = chosen(trained, options, trained.last)
    layers = layers_of(stage)
    if not layers:
        raise Unsuitable("it trained no LoRA; memory=lora does")
    if options.half:
        layers = {name: lazy(value).halved().load() for name, value in layers.items()}
    if isinstance(stage.model.backbone, PretrainedTransformer):
        return _of_transformer(trained, stage, stage.model.backbone, layers, out)
    require_pretrained_unet(trained, stage)
    theirs, ours = in_kohya(layers), convert_state_dict_to_diffusers({f"unet.{k}": v for k, v in layers.items()})
    file = f"{trained.name}_lora.safetensors"
    (out / FOLDER).mkdir()
    texts = modelspec(trained, stage, "lora", USAGE, DIFFUSERS)
    write_tensors(out / FOLDER / FILE, {k: lazy(v) for k, v in ours.items()}, texts)
    texts = modelspec(trained, stage, "lora", USAGE) | network_texts(layers, stage)
    write_tensors(out / file, {k: lazy(v) for k, v in theirs.items()}, texts)
    write_preview(trained, out / file)
    note = f"{len(layers) // 2} layers of stage {stage.name}"
    return [
        Entry(KIND, file, f"{note}; ComfyUI, A1111, Forge, sd-scripts", partial(_check, layers=layers)),
        Entry(KIND, FOLDER, f"{note}; diffusers' load_lora_weights", partial(_check, layers=layers)),
    ]


def _of_transformer(
    trained: Trained, stage: TrainedStage, backbone: PretrainedTransformer, layers: dict[str, Tensor], out: Path
) -> list[Entry]:
    """Write LoRA of a transformer in the names of diffusers, and in those of sd-scripts where the family has some."""
    named = {f"transformer.{name}": lazy(value) for name, value in layers.items()}
    texts = {**family_texts(trained, stage, type(backbone.net).__name__), "ss_network_dim": _rank(layers),
             "ss_network_alpha": _rank(layers)}  # fmt: skip
    file, pipeline = f"{trained.name}_lora.safetensors", getattr(diffusers, backbone.pipeline)
    (out / FOLDER).mkdir()
    write_tensors(out / FOLDER / FILE, named, texts)
    write_tensors(out / file, named, texts)
    write_preview(trained, out / file)
    note = f"{len(layers) // 2} layers of stage {stage.name}"
    check = partial(_check, layers=layers, pipeline=pipeline, prefix="transformer.")
    further = []
    if (theirs := in_sd_scripts(layers, backbone.net)) is not None:
        scripts, joined = f"{trained.name}_lora_kohya.safetensors", {name: lazy(value) for name, value in theirs.items()}
        write_tensors(out / scripts, joined, texts)
        used = f"{note}, in the names of sd-scripts; ComfyUI, sd-scripts, musubi-tuner"
        further.append(Entry(KIND, scripts, used, partial(check_file, tensors=joined, half=False)))
    return [
        Entry(KIND, file, f"{note}, in the names of diffusers; ComfyUI, diffusers", check),
        Entry(KIND, FOLDER, f"{note}; diffusers' load_lora_weights", check),
        *further,
    ]


def layers_of(stage: TrainedStage) -> dict[str, Tensor]:
    """Collect the adapters of a stage: MODULE.lora_A.weight (rank,in) and MODULE.lora_B.weight (out,rank)."""
    return {
        name.split(".", 2)[2].replace(".default.weight", ".weight"): tensor.load()
        for name, tensor in stage.own.items()
        if name.startswith(PREFIXES) and ".lora_" in name
    }


def in_kohya(layers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename adapters as sd-scripts does, and add each one's alpha, which equals its rank: the scale is 1."""
    renamed = convert_state_dict_to_kohya({f"unet.{name}": value for name, value in layers.items()})
    return {name: value.float() if name.endswith(".alpha") else value for name, value in renamed.items()}


def network_texts(layers: dict[str, Tensor], stage: TrainedStage) -> dict[str, str]:
    """Return the metadata by which UIs of LoRA list a file."""
    rank = _rank(layers)
    base = ARCHITECTURES.get(stage.unet.config.cross_attention_dim, "")
    return {
        "ss_network_dim": rank, "ss_network_alpha": rank, "ss_network_module": "networks.lora",
        "ss_base_model_version": BASES.get(base, base or "unknown"),
    }  # fmt: skip


def _rank(layers: dict[str, Tensor]) -> str:
    return str(next(value for name, value in layers.items() if ".lora_A." in name).shape[0])


def _check(path: Path, layers: dict[str, Tensor], pipeline: Any = StableDiffusionPipeline, prefix: str = "unet.") -> str:
    folder, name = (path, FILE) if path.is_dir() else (path.parent, path.name)
    read = pipeline.lora_state_dict(str(folder), weight_name=name, local_files_only=True)
    read = read[0] if isinstance(read, tuple) else read
    state = {_in_peft(key): value for key, value in read.items()}
    expected = {f"{prefix}{key}": value for key, value in layers.items()}
    if unmatched := sorted(state.keys() ^ expected.keys()):
        raise CheckFailed(f"{path}: {unmatched[0]} is not on both sides")
    for key, value in expected.items():
        if not torch.equal(state[key].reshape(value.shape).float(), value.float()):
            raise CheckFailed(f"{path}: {key} differs from the run's")
    return "weights as diffusers loads them, bit by bit"


def _in_peft(name: str) -> str:
    """Return the name in peft of a weight that diffusers has read from either file."""
    name = re.sub(r"\.processor\.(to_[a-z]+)_lora\.", r".\1.lora.", name).replace(".to_out.lora.", ".to_out.0.lora.")
    return name.replace(".lora.down.", ".lora_A.").replace(".lora.up.", ".lora_B.")
