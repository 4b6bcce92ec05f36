"""Nodes for ComfyUI: paint a sketch with a prompt for every region, with a run or an export of ragaf_exp.

Installation: copy or link this file into ComfyUI/custom_nodes, and `pip install ragaf_exp` into ComfyUI's environment.
Images are ComfyUI's: float tensors (B,H,W,3) in [0,1].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

CATEGORY = "RAGAF"
PALETTE = np.array([[230, 80, 70], [70, 130, 230], [80, 180, 90], [240, 180, 50], [160, 90, 200], [60, 190, 190]]) / 255
POLARITIES = ["auto", "dark", "light"]


class RagafLoad:
    """Loads an export (kind diffusers) or a run folder."""

    CATEGORY, FUNCTION = CATEGORY, "load"
    RETURN_TYPES, RETURN_NAMES = ("RAGAF_PIPELINE",), ("pipeline",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {"folder": ("STRING", {"default": "", "tooltip": "an export's folder or hub id, or a run folder"})},
            "optional": {"sources": ("STRING", {"default": "", "tooltip": 'JSON: {"name": "folder"} of named weights'})},
        }  # fmt: skip

    def load(self, folder: str, sources: str = "") -> tuple[Any]:
        """Return the pipeline on ComfyUI's device."""
        from ragaf_exp.export.pipeline import RagafPipeline
        from ragaf_exp.export.pipeline_of_run import pipeline_of_run

        is_run = (Path(folder).expanduser() / "config.yaml").is_file()
        given = json.loads(sources) if sources.strip() else None
        pipeline = pipeline_of_run(folder) if is_run else RagafPipeline.from_pretrained(folder, sources=given)
        return (pipeline.to(_device()),)


class RagafRegions:
    """Finds the regions of a sketch, and shows them with their numbers' colours."""

    CATEGORY, FUNCTION = CATEGORY, "find"
    RETURN_TYPES, RETURN_NAMES = ("RAGAF_REGIONS", "IMAGE", "STRING"), ("regions", "preview", "points")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"pipeline": ("RAGAF_PIPELINE",), "sketch": ("IMAGE",), "polarity": (POLARITIES,)}}

    def find(self, pipeline: Any, sketch: torch.Tensor, polarity: str) -> tuple[dict[str, Any], torch.Tensor, str]:
        """Find the regions.

        Args:
            pipeline: The pipeline.
            sketch: (B,H,W,3) in [0,1]; the first image is taken.
            polarity: dark (strokes on a light ground), light or auto.

        Returns:
            The sketch with its regions and no edits yet, a preview (1,H,W,3), and a point in each region as text.
        """
        from ragaf_exp.data.fit import fit_drawing
        from ragaf_exp.export.inputs import drawing_of
        from ragaf_exp.regions.points import region_points

        picture = (sketch[0, ..., :3].clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
        strokes, size = drawing_of(picture, polarity), pipeline.last.parts.cfg.data.size
        fitted = fit_drawing(strokes, (size, size))
        regions = pipeline.last.parts.prepare.regions(fitted)
        points = region_points(regions.labels, regions.count)
        listed = "\n".join(f"{i}: {x:.3f} {y:.3f}" for i, (x, y) in enumerate(points))
        preview = torch.from_numpy(_preview(regions.labels, fitted))[None]
        return {"strokes": strokes, "points": points, "edits": {}}, preview, listed


class RagafRegionPrompt:
    """Gives one region its own prompt. Chain one node per region."""

    CATEGORY, FUNCTION = CATEGORY, "add"
    RETURN_TYPES, RETURN_NAMES = ("RAGAF_REGIONS",), ("regions",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        strength = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}
        share = {"min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "regions": ("RAGAF_REGIONS",), "region": ("INT", {"default": 0, "min": 0, "max": 999}),
                "prompt": ("STRING", {"multiline": True, "default": ""}),
            },
            "optional": {"importance": ("FLOAT", dict(strength)), "outline": ("FLOAT", dict(strength)),
                         "start": ("FLOAT", {**share, "default": 0.0}), "end": ("FLOAT", {**share, "default": 1.0})},
        }  # fmt: skip

    def add(
        self, regions: dict[str, Any], region: int, prompt: str, importance: float = 1.0, outline: float = 1.0,
        start: float = 0.0, end: float = 1.0,
    ) -> tuple[dict[str, Any]]:
        """Add an edit; the input is not changed, as ComfyUI caches it.

        Args:
            regions: The regions with earlier edits.
            region: Number of the region, from 0.
            prompt: The only text that the region reads; "" = it reads the caption.
            importance: Of that text, 0 to 2; 1 = as trained.
            outline: Of the sketch there, 0 to 2; 1 = as trained.
            start: Share of the noise schedule at which the region begins to read its text; 0 = pure noise.
            end: Share at which it stops; 1 = the finished image.

        Returns:
            The regions with the edit.
        """
        if region >= len(regions["points"]):
            raise ValueError(f"region {region}: this sketch has regions 0 to {len(regions['points']) - 1}")
        edit = {"index": region, "prompt": prompt, "importance": importance, "outline": outline, "start": start, "end": end}
        return ({**regions, "edits": {**regions["edits"], region: edit}},)


class RagafSample:
    """Samples an image of the sketch."""

    CATEGORY, FUNCTION = CATEGORY, "sample"
    RETURN_TYPES, RETURN_NAMES = ("IMAGE", "IMAGE"), ("image", "stage1")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {
            "required": {
                "pipeline": ("RAGAF_PIPELINE",), "regions": ("RAGAF_REGIONS",),
                "prompt": ("STRING", {"multiline": True, "default": ""}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**62}),
                "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
                "guidance": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.1}),
                "strength": ("FLOAT", {"default": 0.9, "min": 0.01, "max": 1.0, "step": 0.01}),
            },
        }  # fmt: skip

    def sample(
        self, pipeline: Any, regions: dict[str, Any], prompt: str, seed: int, steps: int, guidance: float, strength: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sample an image.

        Args:
            pipeline: The pipeline.
            regions: The sketch with the edits of its regions.
            prompt: The caption.
            seed: The seed of the noise.
            steps: Steps of the whole schedule.
            guidance: Text guidance scale, 1 = none.
            strength: Share of the noise schedule that stage 2 runs, in (0,1].

        Returns:
            The last stage's image and stage 1's, each (1,H,W,3) in [0,1].
        """
        edits = {"regions": list(regions["edits"].values())} if regions["edits"] else None
        result = pipeline(
            prompt, regions["strokes"], edits, num_inference_steps=steps, guidance_scale=guidance, strength=strength,
            seed=seed, output_type="np", callback_on_step_end=_interrupted,
        )  # fmt: skip
        image = torch.from_numpy(result.images)
        return image, image if result.coarse_images is None else torch.from_numpy(result.coarse_images)


def _device() -> Any:
    """ComfyUI's device; outside of ComfyUI the CPU."""
    try:
        from comfy.model_management import get_torch_device
    except ImportError:
        return "cpu"
    return get_torch_device()


def _interrupted(pipeline: Any, *_: Any) -> None:
    """Stop sampling where ComfyUI's Cancel was pressed."""
    try:
        from comfy.model_management import throw_exception_if_processing_interrupted
    except ImportError:
        return
    throw_exception_if_processing_interrupted()


def _preview(labels: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """(H,W,3) float32 in [0,1]: each region in its colour, strokes in black."""
    colours = np.where(labels[..., None] >= 0, PALETTE[labels % len(PALETTE)], 1.0)
    return (colours * (1 - strokes[..., None])).astype(np.float32)


NODE_CLASS_MAPPINGS = {
    "RagafLoad": RagafLoad, "RagafRegions": RagafRegions, "RagafRegionPrompt": RagafRegionPrompt,
    "RagafSample": RagafSample,
}  # fmt: skip
NODE_DISPLAY_NAME_MAPPINGS = {
    "RagafLoad": "RAGAF: load", "RagafRegions": "RAGAF: regions of a sketch", "RagafRegionPrompt": "RAGAF: region prompt",
    "RagafSample": "RAGAF: sample",
}  # fmt: skip
