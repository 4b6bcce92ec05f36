"""The model card: README.md with front matter as the Hugging Face hub reads it, and the grid of samples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData
from PIL import Image

from ragaf_exp import __version__
from ragaf_exp.config.compose import config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_mapping, write_bytes, write_text
from ragaf_exp.core.markdown import escape, table
from ragaf_exp.core.safe_files import is_regular, read_bounded
from ragaf_exp.export.examples import examples_of
from ragaf_exp.export.kinds import Entry
from ragaf_exp.export.metadata import CONVENTION, trained_on
from ragaf_exp.export.trained import Trained

FILE, GRID = "README.md", "sample_grid.png"
EMBEDDED = "ragaf_exp.data.sources.scenes."  # module of the procedural scenes
LICENCES = {  # module of a data source -> data set, and its licence
    "scenes": ("procedural scenes of ragaf_exp", "no third-party data"),
    "openmoji": ("OpenMoji", "CC BY-SA 4.0"),
    "coco": ("COCO", "annotations CC BY 4.0; the images' licences are those on Flickr"),
    "quickdraw": ("Quick, Draw!", "CC BY 4.0"),
}
LIMITS = """* The figures hold for the test split of the data below at the size above, not for photos or other drawings.
* Prompts are read as the training captions were: words that never occurred there have no trained effect.
* ControlNet, T2I-Adapter, LoRA and checkpoint files carry no regions: they are parts of the whole pipeline."""


def write_card(trained: Trained, out: Path, entries: Sequence[Entry], licence: str) -> None:
    """Write README.md and the grid of samples, if the run has one.

    Args:
        trained: The run.
        out: The export's folder.
        entries: What it holds.
        licence: Identifier of the licence on the hub; "" = mit for the embedded data without a base model, else other.
    """
    grid = trained.folder.samples / "test" / "grid.png"
    if is_regular(grid):
        buffer = io.BytesIO()
        Image.open(io.BytesIO(read_bounded(grid))).convert("RGB").save(buffer, "PNG")
        write_bytes(out / GRID, buffer.getvalue())
    sections = [
        f"---\n{_front_matter(trained, licence).to_yaml()}\n---\n\n# {escape(trained.name)}\n\n{_summary(trained)}",
        f"![test sketches and samples]({GRID})" if (out / GRID).exists() else "",
        f"## Contents\n\n{_contents(entries)}",
        f"## Use\n\n{_uses(trained, entries)}",
        f"## Figures\n\n{figures_table(_figures(trained))}",
        f"## Data and licences\n\n{_data(trained)}",
        f"## Limits\n\n{LIMITS}",
        f"## Training\n\n{_training(trained)}",
    ]
    write_text(out / FILE, "\n\n".join(filter(None, sections)) + "\n")


def figures_table(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of figures with their 95 % intervals and the numbers of measurements."""
    if not metrics:
        return "The run was not evaluated."
    rows = [
        (escape(name), f"{figure['value']:.3g}", f"{figure['ci95'][0]:.3g} to {figure['ci95'][1]:.3g}", str(figure["n"]))
        for name, figure in metrics.items()
    ]
    return table(("metric", "value", "95 % interval", "n"), rows)


def _front_matter(trained: Trained, licence: str) -> ModelCardData:
    base = str(trained.cfg.backbone.get("source") or "")
    hub = base if base.count("/") == 1 and not Path(base).expanduser().exists() else None
    own = not base and str(trained.cfg.data._target_).startswith(EMBEDDED)
    return ModelCardData(
        library_name="diffusers", pipeline_tag="image-to-image", license=licence or ("mit" if own else "other"),
        base_model=hub, tags=["ragaf", "sketch-to-image", "controlnet", "region-control"],
    )  # fmt: skip


def _summary(trained: Trained) -> str:
    stages = " and ".join(f"{stage.name} ({stage.step:,} steps)" for stage in trained.stages.values())
    size, regional = trained.cfg.data.size, [s.name for s in trained.stages.values() if s.model.ragaf is not None]
    regions = f" Stages that read the sketch as a graph of regions (RAGAF), each with a prompt: {', '.join(regional)}."
    return (f"A diffusion model that paints a sketch from a sentence, trained by ragaf_exp {__version__} at {size}x{size}: "
            f"stages {stages}.{regions if regional else ''}\n\n{CONVENTION} The pipeline itself takes drawings of either "
            "polarity.")  # fmt: skip


def _contents(entries: Sequence[Entry]) -> str:
    return table(("file", "for"), [(f"`{entry.path}`", escape(entry.note)) for entry in entries], text=2)


def _uses(trained: Trained, entries: Sequence[Entry]) -> str:
    blocks = [f"{title}:\n\n```{language}\n{code}\n```" for title, language, code in examples_of(trained, entries)]
    return "Paths are relative to this folder.\n\n" + "\n\n".join(blocks)


def _figures(trained: Trained) -> dict[str, Any]:
    try:
        metrics = read_mapping(trained.folder.metrics, 1)["metrics"]
        return {name: {key: figure[key] for key in ("value", "ci95", "n")} for name, figure in metrics.items()
                if figure.get("value") is not None and figure.get("ci95") is not None}  # fmt: skip
    except (UserError, KeyError, TypeError, AttributeError):
        return {}


def _data(trained: Trained) -> str:
    module = str(trained.cfg.data._target_).split(".")[-2]
    name, terms = LICENCES.get(module, (module, "see the terms of the data set that the run was trained on"))
    text = f"Trained on: {name} ({terms})."
    if source := str(trained.cfg.backbone.get("source") or ""):
        text += f" Started from {escape(Path(source).name if Path(source).exists() else source)}: its licence applies too."
    return text


def _training(trained: Trained) -> str:
    packages = trained.record.get("packages")
    versions = ", ".join(f"{k} {v}" for k, v in packages.items()) if isinstance(packages, dict) else "not recorded"
    command = trained.training_command.replace("`", "'") or "not recorded"
    return (f"Config hash `{config_hash(trained.cfg)}`, seed {trained.cfg.seed}, {trained_on(trained)}. Command: "
            f"`{command}`. Versions: {escape(versions)}.")  # fmt: skip
