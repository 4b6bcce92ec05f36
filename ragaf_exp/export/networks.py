"""Functions that the kinds of single files share: the stage that is exported, folders of diffusers, and their checks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.resident import drop_pages
from ragaf_exp.core.tensor_files import Tensors, differing, read_lazily, write_tensors
from ragaf_exp.export.kinds import CheckFailed, Options, Unsuitable
from ragaf_exp.export.metadata import sample
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.models.backbones.unet_backbone import UNetBackbone

WEIGHTS = "diffusion_pytorch_model.safetensors"
PREVIEW = 512  # pixels of its longer side
COMPARED = 64 * 2**20  # bytes of weights that are compared before the pages that were read for it are dropped


def chosen(trained: Trained, options: Options, usual: TrainedStage) -> TrainedStage:
    """Return the stage that is exported.

    Args:
        trained: The run.
        options: Its `stage` is used.
        usual: The stage where no option names one.
    """
    return trained.stages[options.stage] if options.stage else usual


def require_pretrained_unet(trained: Trained, stage: TrainedStage) -> None:
    """Raise Unsuitable unless the run's UNet is one that other tools have, with the text that they give it."""
    backbone = stage.model.backbone
    if not isinstance(backbone, UNetBackbone):
        raise Unsuitable(f"its backbone is a {type(backbone).__name__}, no UNet")
    if not backbone.pretrained:
        raise Unsuitable("its backbone was trained from scratch, and no other tool has a UNet that the file fits; "
                         "use kinds diffusers or run")  # fmt: skip
    if not getattr(stage.model.text, "attends_padding", False):
        raise Unsuitable("it hides the padding of captions from the denoiser, which other tools do not")


def first_stage(trained: Trained) -> TrainedStage:
    """The first stage of a run, whose networks know no regions."""
    return next(iter(trained.stages.values()))


def write_network(folder: Path, network: Any, tensors: Tensors, half: bool) -> None:
    """Write a network as a folder that diffusers reads.

    Args:
        folder: The folder, which must not exist.
        network: The network, on any device, for its config.
        tensors: Its weights.
        half: Store floats as float16.
    """
    folder.mkdir(parents=True)
    network.save_config(folder)
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"}, half)


def write_preview(trained: Trained, file: Path) -> None:
    """Write the picture that UIs show for a file, NAME.preview.png next to it, if the run has sampled images."""
    picture, buffer = sample(trained), io.BytesIO()
    if picture is not None:
        picture.thumbnail((PREVIEW, PREVIEW))
        picture.save(buffer, "PNG")
        write_bytes(file.with_suffix(".preview.png"), buffer.getvalue())


def check_file(path: Path, tensors: Tensors, half: bool) -> str:
    """Compare a file with the run's weights.

    Args:
        path: The file.
        tensors: The run's weights, by their names in the file.
        half: They were stored as float16.

    Returns:
        What was compared.

    Raises:
        CheckFailed: A weight is missing or differs in any bit.
    """
    expected = {name: tensor.halved() for name, tensor in tensors.items()} if half else tensors
    for name in differing(expected, read_lazily(path, mapped=True)):
        raise CheckFailed(f"{path}: {name} differs from the run's")
    return "weights, bit by bit"


def check_loaded(load: Callable[[torch.dtype], Any], tensors: Tensors, what: str, half: bool) -> None:
    """Compare a network that diffusers has loaded with the run's weights.

    Args:
        load: Loads the network in the type that it was stored in, so that its weights are pages of the file.
        tensors: The run's weights.
        what: The file, for the message.
        half: It was stored as float16.

    Raises:
        CheckFailed: It does not load, or a weight differs in any bit.
    """
    try:
        state: Mapping[str, torch.Tensor] = load(torch.float16 if half else torch.float32).state_dict()
    except Exception as error:  # loaders raise errors of many types
        raise CheckFailed(f"{what}: diffusers can't load it ({error})") from error
    if unmatched := sorted(state.keys() ^ tensors.keys()):
        raise CheckFailed(f"{what}: {unmatched[0]} is not on both sides")
    read = 0
    for name, tensor in tensors.items():
        expected = (tensor.halved() if half else tensor).load()
        if not torch.equal(state[name].to(expected.dtype), expected):
            raise CheckFailed(f"{what}: {name} differs from the run's")
        read += expected.nbytes
        if read > COMPARED:
            drop_pages()
            read = 0
