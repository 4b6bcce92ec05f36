"""Kind `diffusers`: the whole pipeline with its regions, as a folder that diffusers loads."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ragaf_exp.core.tensor_files import Tensors, differing, read_lazily
from ragaf_exp.export.kinds import CheckFailed, Entry, Options
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.export.pipeline import INDEX, write_index
from ragaf_exp.export.portable import portable
from ragaf_exp.export.same_image import check_image
from ragaf_exp.export.stage import PREFIX, read_stage_config, write_stage
from ragaf_exp.export.trained import Trained
from ragaf_exp.training import precision_choice

KIND = "diffusers"


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write model_index.json, the shim pipeline.py, and a subfolder per stage and per network.

    Args:
        trained: The run.
        out: The export's folder.
        options: half and copies are used.

    Returns:
        Its entries.
    """
    config, sources = portable(trained, out, options)
    precision = precision_choice.for_sampling(trained.folder, trained.cfg.memory.device, trained.cfg.memory.precision)
    entries = []
    for stage in trained.stages.values():
        arguments = {"stage": stage.name, "run_config": config, "tokenizer": trained.tokenizer,
                     "precision": precision.precision, "sources": sources}  # fmt: skip
        weights = {f"{PREFIX}{name}": tensor for name, tensor in stage.own.items()}
        write_stage(out / stage.name, arguments, weights, options.half)
        check = partial(_check_weights, weights=weights, half=options.half)
        entries.append(Entry(KIND, stage.name, f"stage {stage.name}; RagafPipeline", check))
    write_index(out, list(trained.stages))
    named = sorted({source["name"] for source in sources.values() if "name" in source})
    note = f"needs {', '.join(named)} (weights=all copies them)" if named else "RagafPipeline; DiffusionPipeline"
    check = partial(_check_index, trained=trained, precision=precision.precision, half=options.half)
    return [Entry(KIND, INDEX, note, check), *entries]


def _check_index(path: Path, trained: Trained, precision: str, half: bool) -> str:
    return check_image(path.parent, trained, precision, half, given_sources(trained, path.parent))


def given_sources(trained: Trained, out: Path) -> dict[str, str]:
    """Return where the run itself has the weights that its export in `out` names: name -> folder or hub id."""
    sources = read_stage_config(out / next(iter(trained.stages)))["sources"]
    return {source["name"]: str(trained.cfg[group].source) for group, source in sources.items() if "name" in source}


def _check_weights(path: Path, weights: Tensors, half: bool) -> str:
    expected = {name: tensor.halved() for name, tensor in weights.items()} if half else weights
    for name in differing(expected, read_lazily(path / WEIGHTS, mapped=True)):
        raise CheckFailed(f"{path}: {name} differs from the run's")
    return "weights, bit by bit"
