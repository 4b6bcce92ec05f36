"""Builds the model of a stage, and initialises it from the stage that it starts from."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.build import build
from ragaf_exp.config.schema import Memory
from ragaf_exp.config.stages import chain, stage_of
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.randomness import derive
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.models.inputs import BoundInputs
from ragaf_exp.models.loading.tuning import LORA, add_lora, map_lora_name, set_trainable
from ragaf_exp.models.model import Model
from ragaf_exp.models.regions.targets import target_sizes
from ragaf_exp.models.swapping import swap_blocks


def unit_of(cfg: DictConfig, model: Model) -> int:
    """Number of pixels that must divide the height and width of a run's images."""
    return model.token_side * max(stage.scale for stage in chain(cfg))


def make_model(parts: Parts, stage: str) -> Model:
    """Build the model of a stage with initial weights; one with regions has the region path in addition."""
    cfg, codec, spec = parts.cfg, parts.codec, stage_of(parts.cfg, stage)
    size = cfg.data.size // spec.scale
    side = size // codec.downscale
    torch.manual_seed(derive(cfg.seed, "init", spec.first))  # the same initial weights in every stage
    text = build(cfg.text, "text", tokenizer=parts.tokenizer)
    widths = {"text_width": text.width, "pooled_width": text.pooled_width}
    wiring = {"channels": codec.channels, "patch": codec.downscale, "base_storage": cfg.memory.base, **widths}
    backbone = build(cfg.backbone, "backbone", **wiring)
    if backbone.base != cfg.memory.base:
        raise UserError(f"memory.base={cfg.memory.base}: for pretrained transformers, such as backbone=flux; set "
                        f"memory.base={backbone.base}")  # fmt: skip
    if (backbone.needs_source or text.reads_image) and not parts.task.has_source:
        raise UserError("task: this backbone edits an image, and this task has none; set task=inpaint, insert, remove, "
                        "white_balance or paint, or a backbone that generates images")  # fmt: skip
    if backbone.schedule is not None:
        parts.diffusion.check_pretrained(backbone.schedule)
    unit = codec.downscale * backbone.stride * (cfg.data.size // size)
    for key, pixels in {"size": cfg.data.size, "width": cfg.data.get("width", 0)}.items():
        if pixels % unit:
            raise UserError(f"data.{key}={pixels}: must be a multiple of {unit} for this backbone, codec and stage")
    parts.sampler.check(side, (cfg.data.get("width") or cfg.data.size) // spec.scale // codec.downscale)
    backbone.set_full_inpaint_mask(codec.blank, size, size)
    shapes = backbone.shapes(side, side)
    hint = build(cfg.hint, "hint", shapes=shapes, downscale=codec.downscale, backbone=backbone, side=side, codec=codec)
    if parts.task.hint_channels != 1:
        hint.widen(parts.task.hint_channels)
    common = (text, hint, backbone, shapes, parts.diffusion.timesteps)
    inputs = BoundInputs(parts.task, codec, side)
    torch.manual_seed(derive(cfg.seed, "init", "lora"))
    add_lora(backbone, spec.starts_from is not None, memory_of(cfg))
    swap_blocks(backbone, memory_of(cfg))
    further = {"inputs": inputs, "downscale": codec.downscale, "crop_input": bool(cfg.data.get("crop_input")),
               "start_channels": codec.channels if spec.takes_start else 0}  # fmt: skip
    if not spec.has_regions:
        return Model(*common, **further)
    torch.manual_seed(derive(cfg.seed, "init", spec.name))
    values = sum(target_sizes(cfg.loss, codec.channels).values())
    path = _region_path(cfg, text, hint, backbone, shapes)
    return Model(*common, values, *path, cfg.loss.contrastive > 0, **further)


START_INPUT = "coarse_in."
ADDED = ("ragaf.", "injection.", "region_latent.", "contrast.", START_INPUT)  # parameters that a stage may have in addition


def init_from_start(model: Model, start: dict[str, torch.Tensor], memory: Memory | str) -> Model:
    """Load the weights of the stage that a model starts from, and mark the parameters that memory.tune trains.

    Args:
        model: The model, changed in place.
        start: State of the other stage's model. Frozen parameters of the model share its tensors. The layer of
            coarse_input is left out where the model has none.
        memory: Config group `memory`, or just its `tune`.

    Returns:
        The model.

    Raises:
        UserError: The state does not fit the model.
    """
    memory = Memory(tune=memory) if isinstance(memory, str) else memory
    known = set(model.state_dict())
    start = {map_lora_name(name, known): value for name, value in start.items()
             if name in known or not name.startswith(START_INPUT)}  # fmt: skip
    missing, unexpected = model.load_state_dict(start, strict=False)
    unknown = [key for key in missing if not key.startswith(ADDED) and LORA not in key]
    if unknown or unexpected:
        raise UserError(f"init: that run's stage does not fit this config ({(unknown + unexpected)[0]})")
    set_trainable(model, True, memory)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name in start and parameter.is_meta == start[name].is_meta:
            parameter.data = start[name]
    return model


def memory_of(cfg: DictConfig) -> Memory:
    """Config group `memory` as its dataclass."""
    return OmegaConf.to_object(OmegaConf.merge(Memory, cfg.memory))


def _region_path(cfg: DictConfig, text: nn.Module, hint: nn.Module, backbone: nn.Module, shapes) -> tuple:
    at_least("ragaf", 1, width=cfg.ragaf.width)
    fusion = build(cfg.fusion, "fusion", width=cfg.ragaf.width)
    backend = build(cfg.graph_backend, "graph_backend")
    backend.check(cfg.memory.device)
    ragaf = build(
        cfg.ragaf, "ragaf", node_features=len(NODE_FEATURES), edge_features=len(EDGE_FEATURES),
        hint_width=hint.width, hint_sizes=hint.resolutions(*shapes["in"][1:]), text_width=text.width,
        fusion=fusion, backend=backend,
    )  # fmt: skip
    injection = build(
        cfg.injection, "injection", shapes=shapes, width=ragaf.width, text_width=text.width,
        cross_layers=backbone.cross_layers,
    )  # fmt: skip
    return ragaf, injection
