"""From a checked config to the objects of a run. The only place that knows how the parts are wired."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import psutil
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ragaf_exp.cache.prepare import cached
from ragaf_exp.config.build import build, locate
from ragaf_exp.config.schema import COARSE, REFINE, Memory
from ragaf_exp.data.loader import Augmented, Examples, Preparer
from ragaf_exp.data.variants import Varied, pictures
from ragaf_exp.diffusion import Diffusion
from ragaf_exp.errors import UserError, at_least
from ragaf_exp.files import write_text
from ragaf_exp.graph.features import EDGE_FEATURES, NODE_FEATURES
from ragaf_exp.models.codec import Codec
from ragaf_exp.models.model import Model
from ragaf_exp.models.schedule import check_schedule
from ragaf_exp.models.tune import LORA, add_lora, choose, fitted
from ragaf_exp.randomness import derive
from ragaf_exp.runfolder import RunFolder
from ragaf_exp.safe_files import is_regular
from ragaf_exp.sampler import Sampler
from ragaf_exp.training.precision import pick_device
from ragaf_exp.training.recovery import Chunks
from ragaf_exp.training.region_targets import asked
from ragaf_exp.types import Item

log = logging.getLogger(__name__)
GIB = 2**30
VOCABULARY_CAPTIONS = 4000  # of the training split, read to fit a tokenizer


@dataclass
class Parts:
    """What both stages share."""

    cfg: DictConfig
    prepare: Preparer
    diffusion: Diffusion
    sampler: Sampler
    codec: Codec
    augment: Any  # (sketch, generator) -> sketch, of the training split
    tokenizer: Any = None
    chunks: Chunks = field(default_factory=Chunks)  # how many items are sampled and validated at once

    @cached_property
    def source(self) -> Any:
        """The data source; built when asked for, so that a finished run can be sampled without its data."""
        return build(self.cfg.data, "data")

    def examples(self, split: str) -> Examples:
        """Examples of train, val or test; kept in memory where no worker process computes them."""
        cache_mb = 0 if self.cfg.stage.workers else self.cfg.stage.cache_mb
        items = self.source.split(split)
        task, seed = self.cfg.task, self.cfg.seed
        if split == "train" and (task.mirror > 0 or task.crops):
            plain, mirrored = pictures(items, task.crops, task.mirror > 0, seed)
            room = cache_mb / (len(plain) + len(mirrored))
            kinds = ([self._examples(split, some, room) for some in kind] for kind in (plain, mirrored))
            return Varied(*kinds, task.mirror, seed)
        return self._examples(split, items, cache_mb)

    def check_splits(self) -> None:
        """What would else be found out after minutes of training. UserError where a split is empty or can't be prepared."""
        for split in ("train", "val", "test"):
            if not len(items := self.source.split(split)):
                raise UserError(f"data: no items in the {split} split; {self._more_of(split)}")
            self.prepare(items[0])

    def _more_of(self, split: str) -> str:
        """What fills an empty split, by keys that the data source has."""
        if hasattr(self.source, "advice"):
            return self.source.advice()
        keys = [f"data.{key}" for key in (split, f"{split}_share") if key in self.cfg.data]
        return f"raise {' or '.join(keys)}" if keys else "give more images"

    def _examples(self, split: str, items: Sequence[Item], cache_mb: float) -> Examples:
        if split == "train" and self.augment.active:
            return Augmented(items, self.prepare, cache_mb, self.augment, self.cfg.seed)
        return Examples(items, self.prepare, cache_mb)


def assemble(cfg: DictConfig, folder: RunFolder) -> Parts:
    """Everything but the networks; fits the tokenizer, or reads it from the run folder."""
    with torch.device("meta"):
        ghost = build(cfg.codec, "codec")
    if cfg.data.size % ghost.downscale:
        raise UserError(f"data.size={cfg.data.size}: must be a multiple of {ghost.downscale}, the pixels per latent pixel "
                        "of this codec")  # fmt: skip
    diffusion = build(cfg.diffusion, "diffusion")
    sampler = build(cfg.sampler, "sampler", diffusion=diffusion)
    parts = Parts(cfg, cached(preparer(cfg), cfg), diffusion, sampler, ghost, build(cfg.augment, "augment"))
    parts.tokenizer = _tokenizer(parts, folder)
    with torch.device("meta"):  # whether all goes together, before any weight is read
        whole = REFINE if REFINE in cfg.stage.run else COARSE  # which holds the other's modules
        for stage in {whole, *cfg.stage.run} if cfg.stage.coarse.scale > 1 else {whole}:
            _check_room(make_model(parts, stage), cfg)
    parts.codec = build(cfg.codec, "codec")
    return parts


def _check_room(model: Model, cfg: DictConfig) -> None:
    """UserError where main memory can't hold the weights of a model, nor what AdamW keeps of each on a processor."""
    memory = cfg.memory
    trained_here = pick_device(memory.device).type == "cpu" and memory.tune == "full" and memory.optimizer == "adamw"
    copies, what = (4, "weights, gradients and moments") if trained_here else (1, "weights")
    count = sum(p.numel() for p in model.parameters())
    need, there = 4 * copies * count, psutil.virtual_memory().total
    if need > there and not (memory.force or memory.shard):
        raise UserError(f"memory: the {what} of {count:,} parameters take {need / GIB:.0f} GiB, and this machine has "
                        f"{there / GIB:.0f}; take smaller widths or fewer layers in backbone, text, hint and ragaf "
                        "(memory.force=true starts anyway)")  # fmt: skip


def preparer(cfg: DictConfig) -> Preparer:
    """Item -> Example, as the config has it."""
    return Preparer(*(build(cfg[key], key) for key in ("sketch", "regions", "graph")))


def make_model(parts: Parts, stage: str) -> Model:
    """The freshly initialised model of a stage; refine adds the region path to coarse's modules."""
    cfg, codec = parts.cfg, parts.codec
    size = cfg.data.size // cfg.stage.coarse.scale if stage == COARSE else cfg.data.size
    side = size // codec.downscale
    torch.manual_seed(derive(cfg.seed, "init", "coarse"))  # the same stage 1 in a coarse and in a refine model
    text = build(cfg.text, "text", tokenizer=parts.tokenizer)
    wiring = {"channels": codec.channels, "text_width": text.width, "patch": codec.downscale}
    backbone = build(cfg.backbone, "backbone", **wiring)
    check_schedule(backbone.schedule, parts.diffusion)
    if size % (unit := codec.downscale * backbone.stride):
        unit *= cfg.data.size // size
        raise UserError(f"data.size={cfg.data.size}: must be a multiple of {unit} for this backbone, codec and stage")
    backbone.keep_nothing(codec.blank, size)
    shapes = backbone.shapes(side)
    hint = build(cfg.hint, "hint", shapes=shapes, downscale=codec.downscale, backbone=backbone, side=side)
    common = (text, hint, backbone, shapes, parts.diffusion.timesteps)
    torch.manual_seed(derive(cfg.seed, "init", "lora"))
    add_lora(backbone, stage, memory_of(cfg))
    if stage == COARSE:
        return Model(*common)
    torch.manual_seed(derive(cfg.seed, "init", "refine"))
    values = sum(asked(cfg.loss, codec.channels).values())
    seen = codec.channels if cfg.stage.refine.coarse_input else 0
    return Model(*common, values, *_region_path(cfg, text, hint, backbone, shapes), cfg.loss.contrastive > 0, seen)


STAGE_2 = ("ragaf.", "injection.", "region_latent.", "contrast.", "coarse_in.")  # what it has beyond stage 1


def adopt(model: Model, coarse: dict[str, torch.Tensor], memory: Memory | str) -> Model:
    """Start a refine model from stage 1's weights, and let it train what memory.tune (or `memory` itself) says.

    Weights that are not trained share the memory of stage 1's.
    """
    memory = Memory(tune=memory) if isinstance(memory, str) else memory
    known = set(model.state_dict())
    coarse = {fitted(name, known): value for name, value in coarse.items()}
    missing, unexpected = model.load_state_dict(coarse, strict=False)
    stranger = [key for key in missing if not key.startswith(STAGE_2) and LORA not in key]
    if stranger or unexpected:
        raise UserError(f"init: that run's stage 1 does not fit this config ({(stranger + unexpected)[0]})")
    choose(model, REFINE, memory)
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
        hint_width=hint.width, hint_sizes=[shapes["in"][1:], *getattr(hint, "sizes", ())], text_width=text.width,
        fusion=fusion, backend=backend,
    )  # fmt: skip
    injection = build(
        cfg.injection, "injection", shapes=shapes, width=ragaf.width, cross_layers=backbone.cross_layers
    )
    return ragaf, injection


def _tokenizer(parts: Parts, folder: RunFolder) -> Any:
    kind = locate(parts.cfg.text._target_, "text")
    if not is_regular(folder.tokenizer):
        tokenizer = kind.tokenizer_for(parts.cfg.text, lambda: _captions(parts))
        write_text(folder.tokenizer, tokenizer.to_str(pretty=True))
    try:
        return kind.load(folder.tokenizer)
    except Exception as error:  # the tokenizers library raises bare Exception
        raise UserError(f"{folder.tokenizer}: damaged ({error}); restore it or train again") from error


def _captions(parts: Parts) -> list[str]:
    """Of the training split, as many as a tokenizer is fitted to."""
    return parts.source.split("train").captions(VOCABULARY_CAPTIONS)
