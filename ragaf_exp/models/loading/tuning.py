"""Selection of the trained weights (memory.tune), and LoRA in the format of diffusers.

With memory.tune=frozen a pretrained backbone is not trained. attention trains its attention layers, lora low-rank adapters
of these (Hu et al. 2021, arXiv 2106.09685), and full all weights. In a stage that starts from another, every mode but full
also freezes the text and hint encoders, and applies to a backbone that was trained from scratch too.
"""

from __future__ import annotations

from pathlib import Path

from ragaf_exp.config.schema import Memory
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import remove_folder, write_folder
from ragaf_exp.models.backbones.base import Backbone
from ragaf_exp.models.model import Model
from ragaf_exp.models.part import PretrainedModule
from ragaf_exp.models.stored import FLOAT32

BASE, LORA = ".base_layer.", ".lora_"


def add_lora(backbone: Backbone, later: bool, memory: Memory) -> None:
    """Add LoRA adapters to the backbone if this stage trains them. They change nothing until they are trained.

    Args:
        backbone: The backbone.
        later: Whether the stage starts from another.
        memory: Config group `memory`.
    """
    if memory.tune != "lora" or not (backbone.pretrained or later):
        return
    backbone.add_lora(memory.lora_rank, memory.attention)


def set_trainable(model: Model, later: bool, memory: Memory) -> None:
    """Set requires_grad for the weights that this stage trains, and clear it for all others.

    Args:
        model: The stage's model.
        later: Whether the stage starts from another.
        memory: Config group `memory`.
    """
    text, hint, backbone = model.text, model.hint, model.backbone
    if backbone.base != FLOAT32 and memory.tune not in ("frozen", "lora"):
        raise UserError(f"memory.base={backbone.base}: holds frozen weights, and memory.tune={memory.tune} trains them; "
                        "take memory.tune=lora or frozen")  # fmt: skip
    keeps = later and memory.tune != "full"
    for module in (hint, model.extra_in, model.task_tokens) if keeps else ():
        if module is not None:
            module.requires_grad_(False)
    if keeps or not text.trained:
        text.requires_grad_(False)
    if keeps or (backbone.pretrained and memory.tune != "full"):
        backbone.requires_grad_(False)
        for name, parameter in backbone.named_parameters():
            attends = memory.tune == "attention" and backbone.is_attention(name, memory.attention)
            parameter.requires_grad_(attends or (memory.tune == "lora" and LORA in name))
    parts: tuple[PretrainedModule, ...] = (text, hint, backbone)
    for part in parts:
        part.changed = part.changed | {name for name, p in part.named_parameters() if p.requires_grad}


def map_lora_name(name: str, known: set[str]) -> str:
    """Map a parameter's name to its name in a model with LoRA, if `known` has that one."""
    module, _, last = name.rpartition(".")
    under = f"{module}{BASE}{last}"
    return under if name not in known and under in known else name


def copy_tuned_weights(start: Model, model: Model) -> None:
    """Record in a model which weights the stage that it starts from has changed: its checkpoints contain them too."""
    for name in ("text", "hint", "backbone"):
        one, two = getattr(start, name), getattr(model, name)
        known = set(two.state_dict())
        two.changed = two.changed | {map_lora_name(parameter, known) for parameter in one.changed}


def save_lora(model: Model, folder: Path) -> Path | None:
    """Write pytorch_lora_weights.safetensors for diffusers' load_lora_weights; None if the model has no LoRA."""
    layers = model.backbone.lora_layers()
    if not layers:
        return None
    remove_folder(folder)
    write_folder(folder, lambda path: model.backbone.write_lora(path, layers))
    return folder
