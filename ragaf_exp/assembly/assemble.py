"""Builds the objects of a run from a checked config. No other module wires parts together."""

from __future__ import annotations

import logging
from typing import Any

import psutil
import torch
from omegaconf import DictConfig

from ragaf_exp.assembly.model import make_model, unit_of
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import pick_device
from ragaf_exp.compute.out_of_memory import Chunks
from ragaf_exp.config.build import build, locate
from ragaf_exp.config.stages import chain, trained
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_text
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.data.cache.prepare import cached
from ragaf_exp.data.loader import Preparer
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder

log = logging.getLogger(__name__)
GIB = 2**30
VOCABULARY_CAPTIONS = 4000  # of the training split, read to fit a tokenizer


def assemble(cfg: DictConfig, folder: RunFolder) -> Parts:
    """Build everything except the networks. Fits the tokenizer, or reads it from the run folder if it exists."""
    locate(cfg.backbone._target_, "backbone").check_source(cfg.backbone)
    with torch.device("meta"):
        codec = build(cfg.codec, "codec")
    if cfg.data.size % codec.downscale:
        raise UserError(f"data.size={cfg.data.size}: must be a multiple of {codec.downscale}, the pixels per latent pixel "
                        "of this codec")  # fmt: skip
    _check_assigned(cfg)
    diffusion = build(cfg.diffusion, "diffusion")
    sampler = build(cfg.sampler, "sampler", diffusion=diffusion)
    prepare, augment = cached(preparer(cfg), cfg), build(cfg.augment, "augment")
    parts = Parts(cfg, prepare, diffusion, sampler, codec, augment, chunks=Chunks(cfg.eval.batch))
    parts.tokenizer = _tokenizer(parts, folder)
    with torch.device("meta"):  # checks that all parts fit together before any weight is read
        scaled = any(stage.scale > 1 for stage in chain(cfg))
        for stage in trained(cfg) if scaled else trained(cfg)[-1:]:  # the last contains the modules of the earlier ones
            model = make_model(parts, stage.name)
            _check_room(model, cfg)
    parts.set_unit(unit_of(cfg, model))
    parts.codec = build(cfg.codec, "codec")
    return parts


def _check_assigned(cfg: DictConfig) -> None:
    """Raise UserError if training assigns phrases to regions and another setting conflicts with that."""
    if (share := cfg.task.get("assign", 0)) == 0:
        return
    if cfg.memory.features == "all":
        raise UserError(f"task.assign={share:g}: needs the text encoder in training; "
                        "set memory.features=latents")  # fmt: skip
    if cfg.loss.coverage > 0:
        raise UserError(f"task.assign={share:g}: loss.coverage rewards attention to every word of the caption, "
                        "and a region with a phrase attends to none; set loss.coverage=0")  # fmt: skip


def _check_room(model: Model, cfg: DictConfig) -> None:
    """Raise UserError if main memory cannot hold the weights, on a CPU also the gradients and AdamW's moments."""
    memory = cfg.memory
    trained_here = pick_device(memory.device).type == "cpu" and memory.tune == "full" and memory.optimizer == "adamw"
    copies, contents = (4, "weights, gradients and moments") if trained_here else (1, "weights")
    count = sum(p.numel() for p in model.parameters())
    needed, total = 4 * copies * count, psutil.virtual_memory().total
    if needed > total and not (memory.force or memory.shard):
        raise UserError(f"memory: the {contents} of {count:,} parameters take {needed / GIB:.0f} GiB, and this machine has "
                        f"{total / GIB:.0f}; take smaller widths or fewer layers in backbone, text, hint and ragaf "
                        "(memory.force=true starts anyway)")  # fmt: skip


def preparer(cfg: DictConfig) -> Preparer:
    """Build the preparer that turns an Item into an Example."""
    return Preparer(*(build(cfg[key], key) for key in ("sketch", "regions", "graph")))


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
    """Captions of the training split for fitting the tokenizer."""
    return parts.source.split("train").captions(VOCABULARY_CAPTIONS)
