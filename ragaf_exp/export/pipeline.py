"""The pipeline of diffusers for exported runs.

`RagafPipeline.from_pretrained(folder)` runs no code of the folder. `DiffusionPipeline.from_pretrained(folder,
trust_remote_code=True)` works too: the folder's pipeline.py imports this module.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from ragaf_exp.config.schema import COARSE, REFINE
from ragaf_exp.config.stages import NAME
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json, write_json, write_text
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.export.inputs import Edits, Picture
from ragaf_exp.export.sampling import Call, Progress, seed_of
from ragaf_exp.export.stage import RagafStage, is_stage
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.loading.sources import share_identical_weights

INDEX, SHIM = "model_index.json", "pipeline.py"
SHIM_TEXT = '''"""Needs `pip install ragaf_exp`, which holds the code."""

from ragaf_exp.export.pipeline import RagafPipeline  # noqa: F401
'''
CHAIN_TEXT = '''"""Needs `pip install ragaf_exp`, which holds the code."""

from ragaf_exp.export.pipeline import pipeline_class

RagafPipeline = pipeline_class({names})
'''
NAMES = (COARSE, REFINE)  # components of RagafPipeline; `pipeline_class` makes one for other stages
COMPONENT = [RagafStage.__module__, RagafStage.__name__]  # a stage in model_index.json
OUTPUTS = ("pil", "np", "pt")


@dataclass
class RagafPipelineOutput(BaseOutput):
    """Sampled images.

    images: the last stage's, as PIL images, or (B,H,W,3) float32 in [0,1] ("np"), or (B,3,H,W) ("pt").
    coarse_images: the first stage's in the same form, None if it is the last or did not run. seed: reproduces them.
    """

    images: Any
    coarse_images: Any = None
    seed: int = 0


class RagafPipeline(DiffusionPipeline):
    """Samples images from a sketch and a prompt, with prompts for single regions; or edits images, if so trained.

    Args:
        **stages: The stages of the run by name, None for one that it lacks.
    """

    _optional_components = list(NAMES)  # noqa: RUF012 - read by diffusers

    def __init__(self, **stages: RagafStage | None):
        super().__init__()
        self.register_modules(**{name: stages.get(name) for name in self._optional_components})
        self._interrupt = False
        for start, stage in pairwise(self.stages.values()):
            share_identical_weights(start.model, stage.model)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, sources: Mapping[str, str] | None = None,
        torch_dtype: torch.dtype | None = None, revision: str | None = None, local_files_only: bool = False,
        **unused: Any,
    ) -> RagafPipeline:  # fmt: skip
        """Load an export without running any code in it.

        Args:
            pretrained_model_name_or_path: The export's folder or hub id.
            sources: Name of a source that the export names instead of holding it -> folder or hub id to load it from.
            torch_dtype: float16 or bfloat16: compute in this precision. Weights stay in float32.
            revision: Branch, tag or commit of a hub id.
            local_files_only: Never access the network.
            **unused: Further options of diffusers, which do not apply here.

        Raises:
            UserError: The folder is missing, incomplete, damaged or from a newer version, or a source is needed.
        """
        folder = _folder(str(pretrained_model_name_or_path), revision, local_files_only)
        index = _read_index(folder)
        stages = {name: RagafStage.from_pretrained(folder / name, sources=sources, torch_dtype=torch_dtype)
                  for name in _stages_of(folder, index)}  # fmt: skip
        if not stages:
            raise UserError(f"{folder / INDEX}: names no stage; fetch it again")
        return pipeline_class(stages)(**stages)

    def save_pretrained(self, save_directory: str | Path, **unused: Any) -> None:
        """Write the pipeline's folder. **unused: options of diffusers, which do not apply here.

        Raises:
            UserError: The pipeline was loaded from a folder that also holds other networks; copy that folder.
        """
        folder = Path(save_directory)
        stages = self.stages
        if any("inside" in source for stage in stages.values() for source in stage.config.sources.values()):
            raise UserError(f"{folder}: this pipeline's weights are in several folders; copy the folder it was loaded from")
        for name, stage in stages.items():
            stage.save_pretrained(folder / name)
        write_index(folder, list(stages))

    @property
    def stages(self) -> dict[str, RagafStage]:
        """The stages by name, in order."""
        names = self._optional_components
        return {name: stage for name in names if (stage := getattr(self, name)) is not None}

    @property
    def last(self) -> RagafStage:
        """The last stage."""
        return list(self.stages.values())[-1]

    @torch.no_grad()
    def __call__(
        self, prompt: str | Sequence[str] = "", sketch: Picture | Sequence[Picture] | None = None,
        edits: Edits | None = None, num_inference_steps: int | None = None, guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable[[RagafPipeline, int, int, dict[str, Any]], Any] | None = None,
        output_type: str = "pil", *, seed: int | None = None, image: Picture | None = None,
        mask_image: Picture | None = None, strength: float | None = None, sketch_guidance_scale: float | None = None,
        image_guidance_scale: float | None = None, height: int | None = None, width: int | None = None,
        polarity: str = "auto", task: str = "", return_dict: bool = True, **columns: Picture,
    ) -> Any:  # fmt: skip
        """Sample images.

        Args:
            prompt: The caption, or one for each image of a batch.
            sketch: The drawing, or one for each image: a picture, a path, or strokes (H,W) in [0,1], 1 = stroke.
            edits: Prompts and other edits of single regions: the content or path of a file as `ragaf_exp.sample` takes it.
            num_inference_steps: Steps of the whole schedule, by default the run's.
            guidance_scale: Text guidance scale, 1 = none, by default the run's.
            generator: A new generator gives the image of its seed; each further call with it gives another image.
            callback_on_step_end: Called with (pipeline, step from 0, timestep, {"stage", "pred_original_sample"}) after
                each step; it may set `pipeline._interrupt = True`.
            output_type: pil, np or pt.
            seed: The seed of the noise, instead of a generator.
            image: The image to edit; with edits, the one of which only the edited regions are sampled again.
            mask_image: White where the image is painted, for tasks with a hole.
            strength: Share of the noise schedule that the last stage runs, in (0,1], by default the run's.
            sketch_guidance_scale: Sketch guidance scale, 1 = none, by default the run's.
            image_guidance_scale: Guidance scale of the image to edit, likewise.
            height: Of the image in pixels, by default the training images'.
            width: Likewise.
            polarity: Of the sketch: dark, light or auto.
            task: Which one, of a run of several tasks.
            return_dict: Whether to return an RagafPipelineOutput instead of a tuple with the images.
            **columns: Further pictures of the run's task, by its column names.

        Returns:
            The images.

        Raises:
            UserError: An input is missing or not valid.
        """
        if output_type not in OUTPUTS:
            raise UserError(f"output_type={output_type}: must be one of {', '.join(OUTPUTS)}")
        self._interrupt = False
        seed = seed_of(seed, generator)
        settings = {"steps": num_inference_steps, "guidance": guidance_scale, "sketch_guidance": sketch_guidance_scale,
                    "image_guidance": image_guidance_scale}  # fmt: skip
        call = Call(self.last.parts, settings, strength, seed, self.last.precision, str(self.device), task)
        pictures = {name: value for name, value in {"image": image, "mask": mask_image, **columns}.items()
                    if value is not None}  # fmt: skip
        with self.progress_bar(total=1) as bar:  # the steps of a stage are known once it starts
            progress = Progress(self, callback_on_step_end, bar)
            results = call.run(self._sampler, prompt, sketch, edits, pictures, (height, width), polarity, progress)
        final, first = (None if images is None else _in_form(images, output_type) for images in results)
        return RagafPipelineOutput(final, first, seed) if return_dict else (final,)

    def _sampler(self, call: Call) -> Pipeline:
        """Build the sampling pipeline of one call."""
        models = {name: stage.model for name, stage in self.stages.items()}
        return make_pipeline(call.parts.cfg, call.parts, models, call.compute)


def _signature(names: Sequence[str]) -> inspect.Signature:
    """The signature of a constructor, from which diffusers reads the components of a pipeline."""
    stages = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    return inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *stages])


setattr(RagafPipeline.__init__, "__signature__", _signature(NAMES))  # noqa: B010 - an attribute of a function


def pipeline_class(names: Iterable[str]) -> type[RagafPipeline]:
    """Return the pipeline for stages of these names, in order: RagafPipeline, or a class like it for other ones."""
    components = list(names)
    if set(components) <= set(NAMES):
        return RagafPipeline

    def init(self: RagafPipeline, **stages: RagafStage | None) -> None:
        RagafPipeline.__init__(self, **stages)

    setattr(init, "__signature__", _signature(components))  # noqa: B010 - an attribute of a function
    content = {
        "__init__": init,
        "_optional_components": components,
        "__module__": __name__,
        "__doc__": RagafPipeline.__doc__,
    }
    return type(RagafPipeline.__name__, (RagafPipeline,), content)


def write_index(folder: Path, stages: Sequence[str]) -> None:
    """Write model_index.json and pipeline.py.

    Args:
        folder: The export's folder.
        stages: Names of the stages that it holds.
    """
    usual = set(stages) <= set(NAMES)
    components = {name: COMPONENT if name in stages else [None, None] for name in (NAMES if usual else stages)}
    index = {"_class_name": ["pipeline", RagafPipeline.__name__], "_diffusers_version": diffusers.__version__}
    write_json(folder / INDEX, {**index, **components})
    write_text(folder / SHIM, SHIM_TEXT if usual else CHAIN_TEXT.format(names=list(stages)))


def _folder(source: str, revision: str | None, local_files_only: bool) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists() or source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise UserError(f"{source}: no such folder; give an export's folder or a hub id")
    from huggingface_hub import snapshot_download  # only hub ids need it
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, revision=revision, local_files_only=local_files_only,
                                      allow_patterns=["*.json", "*.safetensors"])).resolve()  # fmt: skip
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UserError(f"{source}: no such folder, and not available from the hub; check the name and the network") \
            from error  # fmt: skip


def _read_index(folder: Path) -> dict[str, Any]:
    if not is_regular(folder / INDEX):
        raise UserError(f"{folder / INDEX}: missing; is it an export with kind diffusers?")
    content = read_json(folder / INDEX)
    if not isinstance(content, dict) or not all(isinstance(content.get(name, []), list) for name in NAMES):
        raise UserError(f"{folder / INDEX}: damaged; fetch it again")
    return content


def _stages_of(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """Return the names of the stages in an index, which another author may have written."""
    named = [name for name, value in index.items() if NAME.fullmatch(name) and isinstance(value, list) and any(value)]
    return [name for name in named if index[name] == COMPONENT or is_stage(folder / name)]


def _in_form(images: list[np.ndarray], output_type: str) -> Any:
    """Convert images (H,W,3) uint8 to the form that the caller wants."""
    if output_type == "pil":
        return [Image.fromarray(image) for image in images]
    scaled = np.stack(images).astype(np.float32) / 255
    return scaled if output_type == "np" else torch.from_numpy(scaled).permute(0, 3, 1, 2)
