"""Code that loads the files of an export, for the model card; a test executes it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from ragaf_exp.export import adapter, controlnet, diffusers_folder, lora, run_folder
from ragaf_exp.export.kinds import Entry
from ragaf_exp.export.trained import Trained

Example = tuple[str, str, str]  # title, language, code
DRAWING = """from PIL import Image, ImageDraw

sketch = Image.new("L", (256, 256), "white")
ImageDraw.Draw(sketch).ellipse((60, 60, 200, 200), outline="black", width=6)
"""
SOURCES = "# sources: where you have the weights that this export names without holding them\n"


def examples_of(trained: Trained, entries: Sequence[Entry]) -> Iterator[Example]:
    """Yield an example for every kind of file that an export holds."""
    for kind in dict.fromkeys(entry.kind for entry in entries):
        yield from EXAMPLES.get(kind, lambda trained, entries: [])(trained, [e for e in entries if e.kind == kind])


def _pipeline(trained: Trained, entries: Sequence[Entry]) -> list[Example]:
    """The whole pipeline; weights that are named must be given."""
    named = [name.strip() for entry in entries if entry.note.startswith("needs ")
             for name in entry.note.removeprefix("needs ").partition(" (")[0].split(",")]  # fmt: skip
    given = f", sources={json.dumps({name: name for name in named})}" if named else ""
    call = 'image = pipeline("a red circle", sketch, edits={"regions": []}, seed=0).images[0]\nimage.save("image.png")'
    columns = trained.parts.task.columns
    if "image" in columns or "sketch" not in columns or len(trained.stages) == 1:
        call = "print(pipeline.last.parts.task.columns)  # what pipeline(...) takes"
    first = f'from ragaf_exp.export.pipeline import RagafPipeline\n\n{SOURCES if named else ""}' \
            f'pipeline = RagafPipeline.from_pretrained("."{given})\n'  # fmt: skip
    examples = [("With `pip install ragaf_exp`, which runs no code of this folder", "python", f"{DRAWING}\n{first}{call}")]
    if not named:
        second = 'from diffusers import DiffusionPipeline\n\n' \
                 'pipeline = DiffusionPipeline.from_pretrained(".", trust_remote_code=True)\n'  # fmt: skip
        title = "With diffusers, which runs this folder's pipeline.py (it imports ragaf_exp)"
        examples.append((title, "python", f"{DRAWING}\n{second}{call}"))
    return examples


def _run(trained: Trained, entries: Sequence[Entry]) -> list[Example]:
    columns = trained.parts.task.columns
    inputs = " ".join(f"{name}={name}.png" for name, kind in columns.items() if kind in ("image", "drawing"))
    command = f"python -m ragaf_exp.sample run={run_folder.FOLDER} {inputs} 'prompt=\"a red circle\"' out=samples"
    return [("On the command line", "bash", command)]


def _controlnet(trained: Trained, entries: Sequence[Entry]) -> list[Example]:
    kind = type(next(iter(trained.stages.values())).model.hint.net).__name__
    code = f'from diffusers import {kind}\n\ncontrolnet = {kind}.from_pretrained("{controlnet.FOLDER}")'
    more = "; other UIs take the single file" if len(entries) > 1 else ""
    return [(f"The ControlNet in diffusers{more}", "python", code)]


def _adapter(trained: Trained, entries: Sequence[Entry]) -> list[Example]:
    code = f'from diffusers import T2IAdapter\n\nadapter = T2IAdapter.from_pretrained("{adapter.FOLDER}")'
    return [("The T2I-Adapter in diffusers; other UIs take the single file", "python", code)]


def _lora(trained: Trained, entries: Sequence[Entry]) -> list[Example]:
    code = ("from diffusers import StableDiffusionPipeline\n\nweights, _ = StableDiffusionPipeline.lora_state_dict("
            f'"{lora.FOLDER}", weight_name="{lora.FILE}", return_alphas=True)[:2]\n'
            f'# or: pipeline.load_lora_weights("{lora.FOLDER}")')  # fmt: skip
    return [("The LoRA in diffusers; other UIs take the single file", "python", code)]


EXAMPLES: dict[str, Callable[[Trained, Sequence[Entry]], list[Example]]] = {
    diffusers_folder.KIND: _pipeline, run_folder.KIND: _run, controlnet.KIND: _controlnet, adapter.KIND: _adapter,
    lora.KIND: _lora,
}  # fmt: skip
