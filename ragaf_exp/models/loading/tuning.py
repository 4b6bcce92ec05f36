"""What is trained (memory.tune), and LoRA as diffusers keeps it.

frozen: of a pretrained backbone nothing; attention: its attention layers; lora: low-rank additions to them (Hu et al.
2021, arXiv 2106.09685); full: all of it. In stage 2 anything but full leaves text and hint as stage 1 has made them,
and holds for a backbone that stage 1 trained from scratch too.
"""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.config.schema import Memory
from ragaf_exp.config.stages import STAGES
from ragaf_exp.core.files import remove_folder, write_folder
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.model import Model
from ragaf_exp.models.part import PretrainedModule

BASE, LORA = ".base_layer.", ".lora_"


def add_lora(backbone: Backbone, stage: str, memory: Memory) -> None:
    """Give the backbone its low-rank additions where this stage trains them; they add nothing until they are trained."""
    if memory.tune != "lora" or not (backbone.pretrained or STAGES[stage].starts_from):
        return
    backbone.add_lora(memory.lora_rank, memory.attention)


def set_trainable(model: Model, stage: str, memory: Memory) -> None:
    """Let gradients reach what this stage trains, and nothing else."""
    text, hint, backbone = model.text, model.hint, model.backbone
    later = STAGES[stage].starts_from is not None and memory.tune != "full"
    for module in (hint, model.extra_in, model.task_tokens) if later else ():
        if module is not None:
            module.requires_grad_(False)
    if later or not text.trained:
        text.requires_grad_(False)
    if later or (backbone.pretrained and memory.tune != "full"):
        backbone.requires_grad_(False)
        for name, parameter in backbone.named_parameters():
            attends = memory.tune == "attention" and backbone.is_attention(name, memory.attention)
            parameter.requires_grad_(attends or (memory.tune == "lora" and LORA in name))
    parts: tuple[PretrainedModule, ...] = (text, hint, backbone)
    for part in parts:
        part.changed = part.changed | {name for name, p in part.named_parameters() if p.requires_grad}


def map_lora_name(name: str, known: set[str]) -> str:
    """A parameter's name in a model that has LoRA where the other had none."""
    module, _, last = name.rpartition(".")
    under = f"{module}{BASE}{last}"
    return under if name not in known and under in known else name


def copy_tuned_weights(coarse: Model, refine: Model) -> None:
    """Which of a source's weights stage 1 has changed, stage 2 must keep as its own."""
    for name in ("text", "hint", "backbone"):
        one, two = getattr(coarse, name), getattr(refine, name)
        known = set(two.state_dict())
        two.changed = two.changed | {map_lora_name(parameter, known) for parameter in one.changed}


def save_lora(model: Model, folder: Path) -> Path | None:
    """Write pytorch_lora_weights.safetensors, as diffusers' load_lora_weights reads it; None where there is none."""
    layers = model.backbone.lora_layers()
    if not layers:
        return None
    from diffusers import StableDiffusionPipeline

    remove_folder(folder)
    write_folder(folder, lambda place: StableDiffusionPipeline.save_lora_weights(place, unet_lora_layers=layers))
    return folder
