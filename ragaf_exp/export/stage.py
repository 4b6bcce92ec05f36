"""The network of one stage as a model of diffusers. Its folder stands alone: it holds the run's config and tokenizer.

Nothing in a folder is executed or unpickled: the config is read like that of a run folder from elsewhere, and weights are
safetensors.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import ConfigMixin, ModelMixin
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.assembly.parts import Parts
from ragaf_exp.compute.device import NAMES
from ragaf_exp.config.compose import load_config
from ragaf_exp.config.stages import chain
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import read_json, write_json, write_text
from ragaf_exp.core.safe_files import is_regular
from ragaf_exp.core.tensor_files import LazyTensor, Tensors, lazy, read_lazily, write_tensors
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.export.streamed import Reading, streamed_model
from ragaf_exp.models.loading.sources import load_own, own_state
from ragaf_exp.models.model import Model
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import HUB, NETWORKS, PATHS

CONFIG, FORMAT = "config.json", 1
PREFIX = "model."  # of the network's weights within this module
KEYS = ("stage", "run_config", "tokenizer", "precision", "sources")
Sources = Mapping[str, Mapping[str, str]]  # config group -> where its unchanged weights are, and their checksum
Builder = Callable[[Parts, str, Sources], Model]  # parts, name of the stage, sources


class RagafStage(ModelMixin, ConfigMixin):
    """One stage's network with everything that it needs to sample.

    Args:
        stage: Name of the stage.
        run_config: The run's config without paths.
        tokenizer: Content of the run's tokenizer.json.
        precision: no (float32), bf16 or fp16: the precision that the run samples in.
        sources: Config group -> {"inside": subfolder of the export} or {"name": a source}, with the "sha256" of weights
            that the stage's own file does not hold.
        folder: The export's folder, which the subfolders are in.
        given: Name of a source -> folder or hub id to load it from.
        build: Builds the model; by default with initial weights, which those of the stage's file then replace.
    """

    config_name = CONFIG

    def __init__(
        self, stage: str, run_config: dict[str, Any], tokenizer: str, precision: str = "no", sources: Sources | None = None,
        *, folder: Path | None = None, given: Mapping[str, str] | None = None, build: Builder | None = None,
    ):  # fmt: skip
        super().__init__()
        sources = sources or {}
        if precision not in NAMES:
            raise UserError(f"precision={precision}: must be one of {', '.join(NAMES)}")
        self.register_to_config(
            stage=stage, run_config=run_config, tokenizer=tokenizer, precision=precision, sources=dict(sources)
        )
        self.stage, self.precision, self.folder = stage, precision, folder
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced, and the caller's noise stays the same
            self.parts = _parts(run_config, tokenizer, _located(sources, folder, given or {}))
            names = [spec.name for spec in chain(self.parts.cfg)]
            if stage not in names:
                raise UserError(f"stage={stage}: must be one of {', '.join(names)}")
            self.model = make_model(self.parts, stage) if build is None else build(self.parts, stage, sources)
        self.eval().requires_grad_(False)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, sources: Mapping[str, str] | None = None,
        torch_dtype: torch.dtype | None = None, **unused: Any,
    ) -> RagafStage:  # fmt: skip
        """Load a stage from its subfolder of an export.

        Args:
            pretrained_model_name_or_path: The subfolder.
            sources: Name of a source that the export names instead of holding it -> folder or hub id to load it from.
            torch_dtype: float16 or bfloat16: compute in this precision. Weights stay in float32.
            **unused: Further options of diffusers, which do not apply here.

        Raises:
            UserError: A file is missing, damaged, or from a newer version, or a source is needed.
        """
        path = Path(pretrained_model_name_or_path).resolve()
        config = read_stage_config(path)
        if torch_dtype in (torch.float16, torch.bfloat16):
            config["precision"] = "fp16" if torch_dtype == torch.float16 else "bf16"
        stage = cls(**config, folder=path.parent, given=sources)
        stage.load_weights(path / WEIGHTS)
        return stage

    @classmethod
    def streamed(cls, path: Path, sources: Mapping[str, str], reading: Reading) -> RagafStage:
        """Load a stage whose large networks are read while they run, for a few images in little memory.

        Args:
            path: The subfolder of the export.
            sources: Name of a source that the export names instead of holding it -> folder or hub id to load it from.
            reading: How weights are read.

        Raises:
            UserError: A file is missing, damaged, or from a newer version, or a source is needed.
        """
        build = partial(streamed_model, _own(path / WEIGHTS), reading)
        return cls(**read_stage_config(path), folder=path.parent, given=sources, build=build)

    def load_weights(self, path: Path) -> None:
        """Load the stage's own weights. Raises UserError if the file is missing, damaged or does not fit."""
        own = {name: value.load() for name, value in _own(path).items()}
        recorded = {group: dict(source) for group, source in dict(self.config.sources).items()}
        try:
            load_own(self.model, own, recorded)
        except RuntimeError as error:
            raise UserError(f"{path}: does not fit its config.json; fetch the whole folder again") from error
        self.eval().requires_grad_(False)

    def save_pretrained(self, save_directory: str | Path, **unused: Any) -> None:
        """Write the stage's subfolder. **unused: options of diffusers, which do not apply here."""
        folder = Path(save_directory)
        config = {key: _plain(self.config[key]) for key in KEYS}
        own = {f"{PREFIX}{name}": lazy(value) for name, value in own_state(self.model).items()}
        write_stage(folder, config, own, half=False)


def is_stage(folder: Path) -> bool:
    """Whether a folder is one that `write_stage` wrote."""
    content = read_json(folder / CONFIG) if is_regular(folder / CONFIG) else None
    return isinstance(content, dict) and set(KEYS) <= content.keys()


def _own(path: Path) -> dict[str, LazyTensor]:
    """Read the weights of a stage's file by their names in the model."""
    if not is_regular(path):
        raise UserError(f"{path}: missing; the export is incomplete, fetch it again")
    return {name.removeprefix(PREFIX): value for name, value in read_lazily(path, mapped=True).items()}


def write_stage(folder: Path, config: dict[str, Any], weights: Tensors, half: bool) -> None:
    """Write a stage's subfolder.

    Args:
        folder: The subfolder.
        config: The arguments of RagafStage.
        weights: Its own weights, by their names in RagafStage.
        half: Store floats as float16.
    """
    folder.mkdir(parents=True, exist_ok=True)
    header = {"_class_name": RagafStage.__name__, "_diffusers_version": diffusers.__version__, "format": FORMAT}
    write_json(folder / CONFIG, {**header, **config})
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"}, half)


def read_stage_config(folder: Path) -> dict[str, Any]:
    """Read the arguments of RagafStage. Raises UserError if the file is missing, damaged or from a newer version."""
    path = folder / CONFIG
    if not is_regular(path):
        raise UserError(f"{path}: missing; is {folder.parent} an export of ragaf_exp with kind diffusers?")
    content = read_json(path)
    if not isinstance(content, dict) or not set(KEYS) <= content.keys():
        raise UserError(f"{path}: damaged, or no config of a RagafStage; fetch it again")
    if not isinstance(version := content.get("format"), int) or version > FORMAT:
        raise UserError(f"{path}: format {version} is newer than this version's {FORMAT}; update ragaf_exp")
    kinds = {"stage": str, "run_config": dict, "tokenizer": str, "precision": str, "sources": dict}
    for key, kind in kinds.items():
        if not isinstance(content[key], kind):
            raise UserError(f"{path}: damaged ({key} is no {kind.__name__}); fetch it again")
    return {key: content[key] for key in KEYS}


def _parts(run_config: Mapping[str, Any], tokenizer: str, sources: Mapping[str, str]) -> Parts:
    """Assemble the run's parts, with its config checked like that of a run folder from elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        write_text(run.path / "config.yaml", json.dumps(_plain(run_config)))
        write_text(run.tokenizer, tokenizer)
        cfg = load_config(run.path / "config.yaml")
        _check_no_paths(cfg)
        for group, source in sources.items():
            OmegaConf.update(cfg, f"{group}.source", source)
        return assemble(cfg, run)


def _check_no_paths(cfg: DictConfig) -> None:
    """Raise UserError if the config names a file, folder or hub id outside its own folder."""
    for group in NETWORKS:
        for key in PATHS[group]:
            if (value := OmegaConf.select(cfg, f"{group}.{key}")) not in (None, "", HUB):
                raise UserError(f"config.json: {group}.{key}={value}: an export names no files; export the run again")


def _located(sources: Sources, folder: Path | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return config group -> folder or hub id of its weights. Raises UserError for a source that must be given."""
    located = {}
    for group, source in sources.items():
        if group not in NETWORKS:
            raise UserError(f"config.json: sources has no group {group}; export the run again")
        located[group] = _inside(folder, source["inside"]) if "inside" in source else _given(source, given)
    return located


def _inside(folder: Path | None, name: str) -> str:
    if folder is None:
        raise UserError("config.json: its weights are in other subfolders; load it by RagafPipeline.from_pretrained")
    path = (folder / name).resolve()
    if path != folder.resolve() and folder.resolve() not in path.parents:
        raise UserError(f"config.json: {name} is outside the export's folder; fetch it again")
    return str(path)


def _given(source: Mapping[str, str], given: Mapping[str, str]) -> str:
    name = source.get("name", "")
    if name not in given:
        raise UserError(f"this export names weights that it does not hold: give RagafPipeline.from_pretrained(..., "
                        f"sources={{{name!r}: FOLDER or hub id}}), or export with weights=all")  # fmt: skip
    return given[name]


def _plain(value: Any) -> Any:
    """Return a config's value as plain dicts and lists, which diffusers freezes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
