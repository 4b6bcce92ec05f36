"""Builds the edge detector and the networks of an evaluation from its config."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from eval.edges import EdgeReader, reader_of
from eval.networks import Networks
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.schema import PLAIN


def check_readers(cfg: DictConfig, parts: Parts) -> None:
    """Try both before the first training step. Raises UserError if one can't be used."""
    reader, networks = readers(cfg, parts)
    reader.edges(parts.source.split("test")[0].image)
    networks.check()


def readers(cfg: DictConfig, parts: Parts) -> tuple[EdgeReader, Networks]:
    """The edge detector and the networks of an evaluation; weights are loaded on first use."""
    settings = OmegaConf.to_object(OmegaConf.merge(PLAIN["eval"], cfg.eval))
    reader = reader_of(parts.prepare.sketch, cfg.eval.edges, cfg.eval.pidinet, cfg.memory.device)
    folder = cfg.cache.folder if cfg.cache.enabled else None
    return reader, Networks(settings, cfg.memory.device, folder, cfg.cache.gigabytes)
