"""Builds the model of a stage. Stage 2 is initialised from stage 1."""

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
from ragaf_exp.models.swapping import swap_blocks


def unit_of(cfg: DictConfig, model: Model) -> int:
    """Number of pixels that must divide the height and width of a run's images."""
    return model.token_side * max(STAGES[stage].scale(cfg) for stage in chain(cfg))


def make_model(parts: Parts, stage: str) -> Model:
    """Build and initialise the model of a stage. A later stage adds the region path to the modules of the first."""
    cfg, codec, kind = parts.cfg, parts.codec, STAGES[stage]
    size = cfg.data.size // kind.scale(cfg)
    side = size // codec.downscale
    torch.manual_seed(derive(cfg.seed, "init", FIRST.name))  # the same initial weights in every stage
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
    parts.sampler.check(side, (cfg.data.get("width") or cfg.data.size) // kind.scale(cfg) // codec.downscale)
    backbone.set_full_inpaint_mask(codec.blank, size, size)
    shapes = backbone.shapes(side, side)
    hint = build(cfg.hint, "hint", shapes=shapes, downscale=codec.downscale, backbone=backbone, side=side, codec=codec)
    if parts.task.hint_channels != 1:
        hint.widen(parts.task.hint_channels)
    common = (text, hint, backbone, shapes, parts.diffusion.timesteps)
    inputs = BoundInputs(parts.task, codec, side)
    torch.manual_seed(derive(cfg.seed, "init", "lora"))
    add_lora(backbone, stage, memory_of(cfg))
    swap_blocks(backbone, memory_of(cfg))
    further = {"inputs": inputs, "downscale": codec.downscale, "crop_input": bool(cfg.data.get("crop_input"))}
    if not kind.has_region_path:
        return Model(*common, **further)
    torch.manual_seed(derive(cfg.seed, "init", kind.name))
    values = sum(target_sizes(cfg.loss, codec.channels).values())
    coarse_channels = codec.channels if kind.takes_start(cfg) else 0
    path = _region_path(cfg, text, hint, backbone, shapes)
    return Model(*common, values, *path, cfg.loss.contrastive > 0, coarse_channels, **further)


STAGE_2 = ("ragaf.", "injection.", "region_latent.", "contrast.", "coarse_in.")  # parameters that stage 1 lacks


def init_refine_from_coarse(model: Model, coarse: dict[str, torch.Tensor], memory: Memory | str) -> Model:
    """Load stage 1's weights into a refine model and mark the parameters that memory.tune trains.

    Args:
        model: The refine model, changed in place.
        coarse: State of stage 1's model. Frozen parameters of the refine model share its tensors.
        memory: Config group `memory`, or just its `tune`.

    Returns:
        The model.

    Raises:
        UserError: The state does not fit the model.
    """
    memory = Memory(tune=memory) if isinstance(memory, str) else memory
    known = set(model.state_dict())
    coarse = {map_lora_name(name, known): value for name, value in coarse.items()}
    missing, unexpected = model.load_state_dict(coarse, strict=False)
    unknown = [key for key in missing if not key.startswith(STAGE_2) and LORA not in key]
    if unknown or unexpected:
        raise UserError(f"init: that run's stage 1 does not fit this config ({(unknown + unexpected)[0]})")
    set_trainable(model, LAST.name, memory)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and name in coarse and parameter.is_meta == coarse[name].is_meta:
            parameter.data = coarse[name]
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
