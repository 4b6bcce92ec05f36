"""Builds a stage's model; stage 2 is initialised from stage 1."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.build import build
from ragaf_exp.config.schema import Memory
from ragaf_exp.config.stages import FIRST, LAST, STAGES, chain
from ragaf_exp.core.errors import UserError, at_least
from ragaf_exp.core.randomness import derive
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.models.inputs import BoundInputs
from ragaf_exp.models.loading.tuning import LORA, add_lora, map_lora_name, set_trainable
from ragaf_exp.models.model import Model
from ragaf_exp.models.regions.targets import target_sizes


def unit_of(cfg: DictConfig, model: Model) -> int:
    """Pixels of which the sides of a run's images must be multiples."""
    return model.downscale * model.backbone.stride * max(STAGES[stage].scale(cfg) for stage in chain(cfg))


def make_model(parts: Parts, stage: str) -> Model:
    """The freshly initialised model of a stage; a later stage adds the region path to the first one's modules."""
    cfg, codec, kind = parts.cfg, parts.codec, STAGES[stage]
    size = cfg.data.size // kind.scale(cfg)
    side = size // codec.downscale
    torch.manual_seed(derive(cfg.seed, "init", FIRST.name))  # the same modules in every stage's model
    text = build(cfg.text, "text", tokenizer=parts.tokenizer)
    wiring = {"channels": codec.channels, "text_width": text.width, "patch": codec.downscale}
    backbone = build(cfg.backbone, "backbone", **wiring)
    if backbone.schedule is not None:
        parts.diffusion.check_pretrained(backbone.schedule)
    unit = codec.downscale * backbone.stride * (cfg.data.size // size)
    for key, pixels in {"size": cfg.data.size, "width": cfg.data.get("width", 0)}.items():
        if pixels % unit:
            raise UserError(f"data.{key}={pixels}: must be a multiple of {unit} for this backbone, codec and stage")
    backbone.set_full_inpaint_mask(codec.blank, size, size)
    shapes = backbone.shapes(side, side)
    hint = build(cfg.hint, "hint", shapes=shapes, downscale=codec.downscale, backbone=backbone, side=side)
    if parts.task.hint_channels != 1:
        hint.widen(parts.task.hint_channels)
    common = (text, hint, backbone, shapes, parts.diffusion.timesteps)
    inputs = BoundInputs(parts.task, codec, side)
    torch.manual_seed(derive(cfg.seed, "init", "lora"))
    add_lora(backbone, stage, memory_of(cfg))
    further = {"inputs": inputs, "downscale": codec.downscale, "crop_input": bool(cfg.data.get("crop_input"))}
    if not kind.has_region_path:
        return Model(*common, **further)
    torch.manual_seed(derive(cfg.seed, "init", kind.name))
    values = sum(target_sizes(cfg.loss, codec.channels).values())
    seen = codec.channels if kind.takes_start(cfg) else 0
    path = _region_path(cfg, text, hint, backbone, shapes)
    return Model(*common, values, *path, cfg.loss.contrastive > 0, seen, **further)


STAGE_2 = ("ragaf.", "injection.", "region_latent.", "contrast.", "coarse_in.")  # what it has beyond stage 1


def init_refine_from_coarse(model: Model, coarse: dict[str, torch.Tensor], memory: Memory | str) -> Model:
    """Start a refine model from stage 1's weights, and let it train what memory.tune (or `memory` itself) says.

    Weights that are not trained share the memory of stage 1's.
    """
    memory = Memory(tune=memory) if isinstance(memory, str) else memory
    known = set(model.state_dict())
    coarse = {map_lora_name(name, known): value for name, value in coarse.items()}
    missing, unexpected = model.load_state_dict(coarse, strict=False)
    stranger = [key for key in missing if not key.startswith(STAGE_2) and LORA not in key]
    if stranger or unexpected:
        raise UserError(f"init: that run's stage 1 does not fit this config ({(stranger + unexpected)[0]})")
    set_trainable(model, LAST.name, memory)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name in coarse and parameter.is_meta == coarse[name].is_meta:
            parameter.data = coarse[name]
    return model


def memory_of(cfg: DictConfig) -> Memory:
    """The group `memory` as its dataclass."""
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
    injection = build(cfg.injection, "injection", shapes=shapes, width=ragaf.width, cross_layers=backbone.cross_layers)
    return ragaf, injection
