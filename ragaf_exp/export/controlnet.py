"""Kind `controlnet`: a ControlNet as a folder of diffusers, and of a UNet as one file in the original layout too."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from diffusers import ControlNetModel

from ragaf_exp.core.tensor_files import Tensors, write_tensors
from ragaf_exp.export.kinds import Entry, Options, Unsuitable
from ragaf_exp.export.metadata import CONVENTION, modelspec
from ragaf_exp.export.networks import (
    check_loaded,
    chosen,
    first_stage,
    require_pretrained_unet,
    write_network,
    write_preview,
)
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.models.backbones.pretrained_transformer import PretrainedTransformer
from ragaf_exp.models.control.controlnet import ControlNetHint
from ragaf_exp.models.loading import ldm

KIND, FOLDER = "controlnet", "controlnet"
NOTE = "stage 1's structure control, no regions"


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write the folder, and for a UNet the file.

    Args:
        trained: The run.
        out: The export's folder.
        options: half and stage are used.

    Returns:
        Their entries.

    Raises:
        Unsuitable: The run has no ControlNet, or no other tool has its UNet.
    """
    stage = chosen(trained, options, first_stage(trained))
    hint, backbone = stage.model.hint, stage.model.backbone
    if not isinstance(hint, ControlNetHint):
        raise Unsuitable(f"its hint encoder is a {type(hint).__name__}; only hint=controlnet has this form")
    of_transformer = isinstance(backbone, PretrainedTransformer)
    if not of_transformer:
        require_pretrained_unet(trained, stage)
    network: Any = hint.net
    tensors = stage.part("hint.net.", trained.unchanged("hint", network, ""))
    write_network(out / FOLDER, network, tensors, options.half)
    check = partial(_check_folder, kind=type(network), tensors=tensors, half=options.half)
    if of_transformer:
        return [Entry(KIND, FOLDER, f"{NOTE}; {type(network).__name__} of diffusers", check)]
    return [Entry(KIND, FOLDER, f"{NOTE}; diffusers, InvokeAI", check), _write_file(trained, stage, tensors, out, options)]


def _write_file(trained: Trained, stage: TrainedStage, tensors: Tensors, out: Path, options: Options) -> Entry:
    """Write a UNet's ControlNet in the original layout, and its preview."""
    file = f"control_{trained.name}.safetensors"
    names = ldm.controlnet_names(tensors.keys())
    original = {f"{ldm.CONTROLNET}{names[name]}": tensor for name, tensor in tensors.items()}
    write_tensors(out / file, original, modelspec(trained, stage, "controlnet", CONVENTION), options.half)
    write_preview(trained, out / file)
    return Entry(KIND, file, f"{NOTE}; ComfyUI, A1111, Forge", partial(_check_file, tensors=tensors, half=options.half))


def _check_folder(path: Path, kind: Any, tensors: Tensors, half: bool) -> str:
    load = partial(kind.from_pretrained, path, local_files_only=True)
    check_loaded(lambda dtype: load(torch_dtype=dtype), tensors, str(path), half)
    return "weights as diffusers loads them, bit by bit"


def _check_file(path: Path, tensors: Tensors, half: bool) -> str:
    config = str(path.parent / FOLDER)
    load = partial(ControlNetModel.from_single_file, str(path), config=config, local_files_only=True)
    check_loaded(lambda dtype: load(torch_dtype=dtype), tensors, str(path), half)
    return "weights as diffusers loads them, bit by bit"
