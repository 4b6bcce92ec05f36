"""A trained run, opened for export: its config, its networks without weights, and its weights, read when needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json
from ragaf_exp.core.safe_files import is_regular, read_bounded
from ragaf_exp.core.tensor_files import Tensors, read_lazily
from ragaf_exp.models.loading.pretrained import pretrained_tensors
from ragaf_exp.models.model import Model
from ragaf_exp.runs.checkpoints import EMA_FILE, newest_whole
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import NETWORKS, check_followed, follow


@dataclass(frozen=True)
class TrainedStage:
    """One stage of a run."""

    name: str
    step: int  # optimizer steps done
    model: Model  # on the meta device: settings, names and shapes
    own: Tensors  # the averaged weights in its checkpoint, by their names in the model
    sources: Mapping[str, dict[str, str]]  # part -> origin of the weights that the checkpoint does not hold

    @property
    def unet(self) -> Any:
        """The UNet of diffusers inside the backbone; only UNet backbones have one."""
        return self.model.backbone.unet

    def part(self, prefix: str, unchanged: Tensors) -> dict[str, Any]:
        """Collect the weights of a network inside the model.

        Args:
            prefix: Its name in the model, with a dot at the end, such as "backbone.unet.".
            unchanged: Weights of the source that it started from, by their names in the network.

        Returns:
            Name in the network -> tensor; adapters (LoRA) are left out.

        Raises:
            UserError: A weight is in neither.
        """
        names = [name for name in self.model.state_dict() if name.startswith(prefix) and ".lora_" not in name]
        collected = {}
        for name in names:
            inner = name.removeprefix(prefix).replace(".base_layer.", ".")
            tensor = self.own.get(name, unchanged.get(inner))
            if tensor is None:
                raise UserError(f"{self.name}: neither its checkpoint nor its source holds {name}; restore the source")
            collected[inner] = tensor
        return collected


@dataclass(frozen=True)
class Trained:
    """A run and its stages, in order."""

    folder: RunFolder
    cfg: DictConfig
    parts: Parts
    stages: Mapping[str, TrainedStage]
    overridden: Mapping[str, str] = field(default_factory=dict)  # config keys that the command line repeats

    @property
    def name(self) -> str:
        """Its name, as part of file names."""
        name = re.sub(r"[^\w.-]+", "_", str(self.cfg.name)).strip("._-") or "run"
        return f"{name}_" if name.endswith("_shuffle") else name  # ComfyUI treats files of that name differently

    @property
    def last(self) -> TrainedStage:
        """The last stage."""
        return list(self.stages.values())[-1]

    @cached_property
    def record(self) -> dict[str, Any]:
        """Content of environment.json; empty if it is missing or damaged."""
        try:
            content = read_json(self.folder.path / "environment.json")
        except UserError:
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def tokenizer(self) -> str:
        """Content of tokenizer.json."""
        return read_bounded(self.folder.tokenizer).decode()

    @property
    def training_command(self) -> str:
        """The command line of the run."""
        command = self.record.get("command")
        return " ".join(map(str, command)) if isinstance(command, list) else ""

    def unchanged(self, group: str, network: torch.nn.Module, subfolder: str) -> Tensors:
        """Return the weights of a config group's source, read when needed; none if it has no source.

        Args:
            group: The config group.
            network: The network, on any device, for its names.
            subfolder: Subfolder of the source that holds the network.
        """
        group_cfg = self.cfg[group]
        if not group_cfg.get("source") or group_cfg.get("weights", "pretrained") != "pretrained":
            return {}
        return pretrained_tensors(group, group_cfg, network, subfolder, mapped=True)


def open_run(path: str, followed: Mapping[str, str]) -> Trained:
    """Open a trained run.

    Args:
        path: The run folder, which may be untrusted.
        followed: Config keys of files or networks that the command line repeats, and their values.

    Raises:
        UserError: The run is missing, unfinished or damaged, or names files that the command line does not repeat.
    """
    folder, cfg = RunFolder.read(path)
    cfg = follow(folder, cfg, dict(followed))
    check_followed(folder, cfg, NETWORKS)
    if not is_regular(folder.tokenizer):
        raise UserError(f"{folder.tokenizer}: missing; restore it or train again")
    parts = assemble(cfg, folder)
    stages = {stage.name: _stage(folder, parts, stage.name) for stage in chain(cfg)}
    return Trained(folder, cfg, parts, stages, dict(followed))


def _stage(folder: RunFolder, parts: Parts, name: str) -> TrainedStage:
    path = newest_whole(folder.checkpoints, name, ("ema",))
    if path is None:
        raise UserError(f"{folder.checkpoints / name}: no intact checkpoint; train this stage again")
    with torch.device("meta"):
        model = make_model(parts, name)
    own = read_lazily(Path(path) / EMA_FILE, mapped=True)
    if unknown := sorted(own.keys() - model.state_dict().keys()):
        raise UserError(f"{path}: does not fit this config's model ({unknown[0]}); was config.yaml changed?")
    state = read_json(path / "state.json")
    return TrainedStage(name, state["step"], model, own, state.get("sources", {}))
