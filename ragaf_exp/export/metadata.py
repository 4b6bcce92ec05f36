"""Texts in the headers of single files: Stability's modelspec, the fields that UIs of LoRA read, and the run's identity."""

from __future__ import annotations

import base64
import io
from datetime import datetime, timezone

from PIL import Image

from ragaf_exp.config.compose import config_hash
from ragaf_exp.config.stages import IMAGES
from ragaf_exp.core.safe_files import is_regular, names_in, read_bounded
from ragaf_exp.export.trained import Trained, TrainedStage

CONVENTION = "The control image is white strokes on a black ground: three equal channels in [0, 1], 1 = stroke."
NATIVE = "https://github.com/Stability-AI/generative-models"  # implementation of the original layout in modelspec
DIFFUSERS = "https://github.com/huggingface/diffusers"
ARCHITECTURES = {768: "stable-diffusion-v1", 1024: "stable-diffusion-v2"}  # by the width of the text tokens
THUMBNAIL = 256  # pixels of its longer side


def modelspec(trained: Trained, stage: TrainedStage, what: str, usage: str, implementation: str = NATIVE) -> dict[str, str]:
    """Describe a file by the keys of modelspec 1.0.1 (https://github.com/Stability-AI/ModelSpec).

    Args:
        trained: The run.
        stage: The stage whose weights the file holds.
        what: The kind of network, such as "controlnet"; "" = a whole checkpoint.
        usage: How to use it.
        implementation: The code whose layout the file has.

    Returns:
        Key -> text.
    """
    return _texts(trained, stage, "/".join(filter(None, (architecture(stage), what))), what, usage, implementation)


def family_texts(trained: Trained, stage: TrainedStage, network: str) -> dict[str, str]:
    """Describe LoRA of a transformer by the keys of modelspec.

    Args:
        trained: The run.
        stage: The stage whose weights the file holds.
        network: The transformer's class in diffusers.
    """
    usage = "Load at strength 1. It was trained with region tokens, which other tools do not have."
    return _texts(trained, stage, f"{network}/lora", "lora", usage, DIFFUSERS)


def _texts(
    trained: Trained, stage: TrainedStage, architecture: str, what: str, usage: str, implementation: str
) -> dict[str, str]:
    size = trained.cfg.data.size
    texts = {
        "modelspec.sai_model_spec": "1.0.1", "modelspec.architecture": architecture,
        "modelspec.implementation": implementation, "modelspec.title": f"{trained.name} {what}".strip(),
        "modelspec.usage_hint": usage,
        "modelspec.description": f"Trained by ragaf_exp, stage {stage.name}, {stage.step} steps.",
        "modelspec.date": trained_on(trained), "modelspec.resolution": f"{size}x{size}",
        "modelspec.prediction_type": {"eps": "epsilon"}.get(prediction(trained), prediction(trained)),
        "ragaf_exp.config_hash": config_hash(trained.cfg), "ragaf_exp.command": trained.training_command, "format": "pt",
    }  # fmt: skip
    if picture := thumbnail(trained):
        texts["modelspec.thumbnail"] = f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"
    return texts


def architecture(stage: TrainedStage) -> str:
    """The name of a UNet's architecture in modelspec."""
    config = stage.unet.config
    name = ARCHITECTURES.get(config.cross_attention_dim, f"unet-{config.cross_attention_dim}")
    return f"{name}-inpainting" if config.in_channels > config.out_channels else name


def prediction(trained: Trained) -> str:
    """The prediction type of the run's diffusion process."""
    return str(getattr(trained.parts.diffusion, "prediction", "flow"))


def trained_on(trained: Trained) -> str:
    """The day on which the run ended, YYYY-MM-DD."""
    return datetime.fromtimestamp(trained.folder.state.get("updated", 0), timezone.utc).strftime("%Y-%m-%d")


def sample(trained: Trained) -> Image.Image | None:
    """The first sampled test image of the last stage; None if the run has none."""
    folder = trained.folder.samples / "test"
    for item in names_in(folder):
        for stage in reversed(IMAGES):
            path = folder / item / f"{stage}.png"
            if is_regular(path):
                return Image.open(io.BytesIO(read_bounded(path))).convert("RGB")
    return None


def thumbnail(trained: Trained) -> bytes:
    """That image as a small JPEG; empty if there is none."""
    picture, buffer = sample(trained), io.BytesIO()
    if picture is None:
        return b""
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
