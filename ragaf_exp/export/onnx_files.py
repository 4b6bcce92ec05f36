"""Kind `onnx`: for each stage one denoising step, and a whole image at the run's steps and guidance."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.stages import stage_of
from ragaf_exp.export.kinds import Entry, Options, Unsuitable
from ragaf_exp.export.onnx_compare import check_image
from ragaf_exp.export.onnx_image import export_image, steps_of
from ragaf_exp.export.onnx_step import check_step, export_step, noised
from ragaf_exp.export.trained import Trained
from ragaf_exp.inference.load import load_run
from ragaf_exp.inference.pipeline import Pipeline

KIND, FOLDER = "onnx", "onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write(trained: Trained, out: Path, options: Options) -> list[Entry]:
    """Write the graphs of each stage with the names of their inputs.

    Args:
        trained: The run.
        out: The export's folder.
        options: stage is used: only this one.

    Returns:
        Its entries.

    Raises:
        Unsuitable: A package is missing.
    """
    if absent := [name for name in PACKAGES if find_spec(name) is None]:
        raise Unsuitable(f'needs the packages {", ".join(absent)}: pip install "ragaf_exp[onnx]"')
    parts, pipeline = load_run(trained.folder, trained.cfg.copy())
    (out / FOLDER).mkdir()
    entries = []
    for name in [options.stage] if options.stage else list(trained.stages):
        model = pipeline.models[name].cpu()
        export_step(model, parts, out / FOLDER / f"{name}.onnx")
        note = f"a denoising step of stage {name}, float32, any number of regions and tokens"
        entries.append(Entry(KIND, f"{FOLDER}/{name}.onnx", note, partial(check_step, model=model, parts=parts)))
        entries += _image(name, parts, pipeline, out)
    return entries


def _image(stage: str, parts: Parts, pipeline: Pipeline, out: Path) -> list[Entry]:
    """Write the graph of a whole image; nothing where guidance is normalised, or the stage samples smaller images."""
    sampler, model = parts.sampler, pipeline.models[stage]
    spec = stage_of(parts.cfg, stage)
    weights = [weight for weight, *_ in sampler.passes()]
    if (sampler.norm_patch and len(weights) > 1) or spec.scale > 1:
        return []
    from_start = spec.starts_from in pipeline.models
    shape = tuple(noised(parts)[0].shape)
    steps = steps_of(sampler, (shape[2], shape[3]), from_start, spec.strength)
    file = f"{FOLDER}/{stage}_image.onnx"
    export_image(out / FOLDER / f"{stage}.onnx", out / file, steps, shape, weights)
    strength = spec.strength if from_start else None
    check = partial(check_image, model=model, parts=parts, steps=steps, strength=strength)
    return [Entry(KIND, file, f"a whole image of stage {stage} in {len(steps.times)} steps, float32", check)]
