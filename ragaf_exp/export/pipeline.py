"""The pipeline of diffusers for exported runs.

`RagafPipeline.from_pretrained(folder)` runs no code of the folder. `DiffusionPipeline.from_pretrained(folder,
trust_remote_code=True)` works too: the folder's pipeline.py imports this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json, write_json, write_text
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.export.inputs import Edits, Picture
from ragaf_exp.export.sampling import Call, Progress, seed_of
from ragaf_exp.export.stage import RagafStage
from ragaf_exp.inference.load import make_pipeline
from ragaf_exp.inference.pipeline import Pipeline
from ragaf_exp.models.loading.sources import share_identical_weights

INDEX, SHIM = "model_index.json", "pipeline.py"
SHIM_TEXT = '''"""Needs `pip install ragaf_exp`, which holds the code."""

from ragaf_exp.export.pipeline import RagafPipeline  # noqa: F401
'''
STAGES = ("coarse", "refine")
OUTPUTS = ("pil", "np", "pt")


@dataclass
class RagafPipelineOutput(BaseOutput):
    """Sampled images.

    images: the last stage's, as PIL images, or (B,H,W,3) float32 in [0,1] ("np"), or (B,3,H,W) ("pt").
    coarse_images: stage 1's in the same form, None if it did not run. seed: reproduces them.
    """

    images: Any
    coarse_images: Any = None
    seed: int = 0


class RagafPipeline(DiffusionPipeline):
    """Samples images from a sketch and a prompt, with prompts for single regions; or edits images, if so trained.

    Args:
        coarse: Stage 1, or None.
        refine: Stage 2, which has the region path, or None.
    """

    _optional_components = list(STAGES)  # noqa: RUF012 - read by diffusers

    def __init__(self, coarse: RagafStage | None = None, refine: RagafStage | None = None):
        super().__init__()
        self.register_modules(coarse=coarse, refine=refine)
        self._interrupt = False
        if coarse is not None and refine is not None:
            share_identical_weights(coarse.model, refine.model)

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
        present = [name for name in STAGES if (index.get(name) or [None])[0]]
        if not present:
            raise UserError(f"{folder / INDEX}: names no stage; fetch it again")
        return cls(**{
            name: RagafStage.from_pretrained(folder / name, sources=sources, torch_dtype=torch_dtype) for name in present
        })  # fmt: skip

    def save_pretrained(self, save_directory: str | Path, **unused: Any) -> None:
        """Write the pipeline's folder. **unused: options of diffusers, which do not apply here.

        Raises:
            UserError: The pipeline was loaded from a folder that also holds other networks; copy that folder.
        """
        folder = Path(save_directory)
        stages = {name: stage for name in STAGES if (stage := getattr(self, name)) is not None}
        if any("inside" in source for stage in stages.values() for source in stage.config.sources.values()):
            raise UserError(f"{folder}: this pipeline's weights are in several folders; copy the folder it was loaded from")
        for name, stage in stages.items():
            stage.save_pretrained(folder / name)
        write_index(folder, list(stages))

    @property
    def last(self) -> RagafStage:
        """The last stage."""
        return self.coarse if self.refine is None else self.refine

    @torch.no_grad()
    def __call__(
        self, prompt: str | Sequence[str] = "", sketch: Picture | Sequence[Picture] | None = None,
        edits: Edits | None = None, num_inference_steps: int | None = None, guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: Callable[[RagafPipeline, int, int, dict[str, Any]], Any] | None = None,
        output_type: str = "pil", *, seed: int | None = None, image: Picture | None = None,
        mask_image: Picture | None = None, strength: float | None = None, sketch_guidance_scale: float | None = None,
        height: int | None = None, width: int | None = None, polarity: str = "auto", task: str = "",
        return_dict: bool = True, **columns: Picture,
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
            strength: Share of the noise schedule that stage 2 runs, in (0,1], by default the run's.
            sketch_guidance_scale: Sketch guidance scale, 1 = none, by default the run's.
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
        settings = {"steps": num_inference_steps, "guidance": guidance_scale, "sketch_guidance": sketch_guidance_scale}
        call = Call(self.last.parts, settings, strength, seed, self.last.precision, str(self.device), task)
        pictures = {name: value for name, value in {"image": image, "mask": mask_image, **columns}.items()
                    if value is not None}  # fmt: skip
        with self.progress_bar(total=1) as bar:  # the steps of a stage are known once it starts
            progress = Progress(self, callback_on_step_end, bar)
            results = call.run(self._sampler, prompt, sketch, edits, pictures, (height, width), polarity, progress)
        final, coarse = (None if images is None else _in_form(images, output_type) for images in results)
        return RagafPipelineOutput(final, coarse, seed) if return_dict else (final,)

    def _sampler(self, call: Call) -> Pipeline:
        """Build the sampling pipeline of one call."""
        coarse, refine = (None if stage is None else stage.model for stage in (self.coarse, self.refine))
        return make_pipeline(call.parts.cfg, call.parts, coarse, refine, call.compute)


def write_index(folder: Path, stages: Sequence[str]) -> None:
    """Write model_index.json and pipeline.py.

    Args:
        folder: The export's folder.
        stages: Names of the stages that it holds.
    """
    components = {name: [RagafStage.__module__, RagafStage.__name__] if name in stages else [None, None] for name in STAGES}
    index = {"_class_name": ["pipeline", RagafPipeline.__name__], "_diffusers_version": diffusers.__version__}
    write_json(folder / INDEX, {**index, **components})
    write_text(folder / SHIM, SHIM_TEXT)


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
    if not isinstance(content, dict) or not all(isinstance(content.get(name, []), list) for name in STAGES):
        raise UserError(f"{folder / INDEX}: damaged; fetch it again")
    return content


def _in_form(images: list[np.ndarray], output_type: str) -> Any:
    """Convert images (H,W,3) uint8 to the form that the caller wants."""
    if output_type == "pil":
        return [Image.fromarray(image) for image in images]
    scaled = np.stack(images).astype(np.float32) / 255
    return scaled if output_type == "np" else torch.from_numpy(scaled).permute(0, 3, 1, 2)
