"""Kind `checkpoint`: a whole Stable Diffusion 1.x with the run's UNet as one file in the original layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextModel

from ragaf_exp.core.tensor_files import LazyTensor, Tensors, lazy, write_tensors
from ragaf_exp.export.kinds import Entry, Options, Unsuitable
from ragaf_exp.export.metadata import modelspec
from ragaf_exp.export.networks import (
    check_file,
    check_loaded,
    chosen,
    first_stage,
    require_pretrained_unet,
    write_network,
    write_preview,
)
from ragaf_exp.export.trained import Trained, TrainedStage
from ragaf_exp.models.loading import ldm

KIND, FOLDER = "checkpoint", "unet_tuned"
PREFIX = "backbone.unet."
USAGE = "A checkpoint of Stable Diffusion 1.x, without the run's sketch encoder and regions."


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write the checkpoint, and its UNet as a folder of diffusers.

    Args:
        trained: The run.
        out: The export's folder.
        options: half and stage are used.

    Returns:
        Their entries.

    Raises:
        Unsuitable: The run did not change the UNet, or one of its networks is not Stable Diffusion 1.x's.
    """
    stage = chosen(trained, options, first_stage(trained))
    require_pretrained_unet(trained, stage)
    _require_changed(stage)
    unet = stage.part(PREFIX, trained.unchanged("backbone", stage.unet, "unet"))
    whole = _in_original(unet, ldm.unet_names(unet.keys()), ldm.UNET)
    whole |= _text(trained, stage) | _autoencoder(trained)
    file = f"{trained.name}.safetensors"
    write_network(out / FOLDER, stage.unet, unet, options.half)
    write_tensors(out / file, whole, modelspec(trained, stage, "", USAGE), options.half)
    write_preview(trained, out / file)
    return [
        Entry(KIND, file, f"stage {stage.name}'s UNet, without sketch and regions; ComfyUI, A1111, Forge, diffusers",
              partial(check_file, tensors=whole, half=options.half)),
        Entry(KIND, FOLDER, "the same UNet for diffusers", partial(_check_unet, tensors=unet, half=options.half)),
    ]  # fmt: skip


def _require_changed(stage: TrainedStage) -> None:
    own = [name for name in stage.own if name.startswith(PREFIX)]
    if any(".lora_" in name for name in own):
        raise Unsuitable("it trained LoRA instead of the UNet's weights; kind lora holds it")
    if not own:
        raise Unsuitable("its UNet is unchanged: use the checkpoint that it started from (memory.tune=full trains it)")


def _text(trained: Trained, stage: TrainedStage) -> dict[str, LazyTensor]:
    network = getattr(stage.model.text, "net", None)
    if not isinstance(network, CLIPTextModel) or network.config.hidden_act != "quick_gelu":
        raise Unsuitable("its text encoder is not that of Stable Diffusion 1.x")
    tensors = stage.part("text.net.", trained.unchanged("text", network, trained.cfg.text.subfolder))
    return _in_original(tensors, ldm.text_names(tensors.keys()), ldm.TEXT)


def _autoencoder(trained: Trained) -> dict[str, LazyTensor]:
    network = getattr(trained.parts.codec, "net", None)
    if not isinstance(network, AutoencoderKL):
        raise Unsuitable("its codec is not the autoencoder of Stable Diffusion; codec=kl is")
    tensors = {name: lazy(value) for name, value in network.state_dict().items()}
    renamed = _in_original(tensors, ldm.autoencoder_names(tensors.keys()), "")
    return {
        f"{ldm.VAE}{name}": tensor.reshaped(*tensor.shape, 1, 1) if ldm.is_projection(name) else tensor
        for name, tensor in renamed.items()
    }


def _in_original(tensors: Tensors, names: dict[str, str], prefix: str) -> dict[str, LazyTensor]:
    return {f"{prefix}{names[name]}": tensor for name, tensor in tensors.items()}


def _check_unet(path: Path, tensors: Tensors, half: bool) -> str:
    load = partial(UNet2DConditionModel.from_pretrained, path, local_files_only=True)
    check_loaded(lambda dtype: load(torch_dtype=dtype), tensors, str(path), half)
    return "weights as diffusers loads them, bit by bit"
