"""Kind `adapter`: a T2I-Adapter as a folder of diffusers and as one file."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from diffusers import T2IAdapter

from ragaf_exp.core.tensor_files import Tensors, write_tensors
from ragaf_exp.export.kinds import Entry, Options, Unsuitable
from ragaf_exp.export.metadata import CONVENTION, DIFFUSERS, modelspec
from ragaf_exp.export.networks import (
    check_file,
    check_loaded,
    chosen,
    first_stage,
    require_pretrained_unet,
    write_network,
    write_preview,
)
from ragaf_exp.export.trained import Trained

KIND, FOLDER = "adapter", "t2iadapter"
LEVELS, BLOCKS = 4, 2  # of the adapters that ComfyUI and A1111 read


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write the folder and the file.

    Args:
        trained: The run.
        out: The export's folder.
        options: half and stage are used.

    Returns:
        Their entries.

    Raises:
        Unsuitable: The run has no T2I-Adapter, or no other tool has its UNet.
    """
    stage = chosen(trained, options, first_stage(trained))
    network = getattr(stage.model.hint, "net", None)
    if not isinstance(network, T2IAdapter):
        raise Unsuitable(f"its hint encoder is a {type(stage.model.hint).__name__}; only hint=t2i has this form")
    require_pretrained_unet(trained, stage)
    tensors = stage.part("hint.net.", trained.unchanged("hint", network, ""))
    file = f"t2iadapter_{trained.name}.safetensors"
    write_network(out / FOLDER, network, tensors, options.half)
    texts = modelspec(trained, stage, "t2iadapter", CONVENTION, DIFFUSERS)
    write_tensors(out / file, tensors, texts, options.half)
    write_preview(trained, out / file)
    return [
        Entry(KIND, FOLDER, "stage 1's structure control, no regions; diffusers",
              partial(_check_folder, tensors=tensors, half=options.half)),
        Entry(KIND, file, _readers(network), partial(check_file, tensors=tensors, half=options.half)),
    ]  # fmt: skip


def _readers(network: T2IAdapter) -> str:
    c = network.config
    if (c.adapter_type, len(c.channels), c.num_res_blocks) == ("full_adapter", LEVELS, BLOCKS):
        return "in the names of diffusers; ComfyUI, A1111, Forge"
    return f"diffusers alone: other UIs read a full_adapter of {LEVELS} levels with hint.layers={BLOCKS}"


def _check_folder(path: Path, tensors: Tensors, half: bool) -> str:
    load = partial(T2IAdapter.from_pretrained, path, local_files_only=True)
    check_loaded(lambda dtype: load(torch_dtype=dtype), tensors, str(path), half)
    return "weights as diffusers loads them, bit by bit"
