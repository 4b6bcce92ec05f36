"""A run's config without paths, and the networks that it started from as subfolders of the export."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from torch import nn
from transformers import CLIPTextModel

from ragaf_exp.config.schema import PLAIN
from ragaf_exp.core.files import checksum, write_json
from ragaf_exp.core.tensor_files import Tensors, lazy, write_tensors
from ragaf_exp.export.kinds import Options
from ragaf_exp.export.networks import WEIGHTS
from ragaf_exp.export.trained import Trained
from ragaf_exp.models.loading import ldm
from ragaf_exp.models.loading.hub import PRETRAINED, RANDOM
from ragaf_exp.models.text.base import TextEncoder
from ragaf_exp.models.text.pipeline_text import PipelineText
from ragaf_exp.runs.followed import HUB, PATHS

HERE = "."  # the export's folder, which has the layout of diffusers
DRAWN = {"_target_": "ragaf_exp.sketch.drawn.Drawn"}
SCHEDULER = "scheduler"


@dataclass(frozen=True)
class Network:
    """A network of a run that may come from a source."""

    group: str
    net: nn.Module | None  # None: the several text encoders of a transformer family
    subfolder: str  # in its source
    target: str  # subfolder of the export
    prefix: str = ""  # of its weights in a stage's model


def portable(trained: Trained, out: Path, options: Options) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
    """Write the networks that the config refers to, and return the config and the origins of unchanged weights.

    Args:
        trained: The run.
        out: The export's folder.
        options: copies and half are used.

    Returns:
        The config without paths, and config group -> origin, as RagafStage takes both.
    """
    config = _without_paths(trained)
    sources: dict[str, dict[str, str]] = {}
    _write_scheduler(trained.parts.diffusion.scheduler(trained.cfg.sampler.scheduler), out / SCHEDULER)
    if trained.cfg.diffusion.get("source"):
        sources["diffusion"] = {"inside": HERE}
    for network in _networks(trained):
        given = str(trained.cfg[network.group].get("source") or "")
        if given and given != HUB:
            _place(network, trained, out, options, config, sources)
        elif given:
            config[network.group]["source"] = given
    return config, sources


def _write_scheduler(scheduler: Any, folder: Path) -> None:
    """Write scheduler_config.json, with the class of diffusers where the scheduler is a subclass of it."""
    kind = next(cls for cls in type(scheduler).__mro__ if cls.__module__.startswith("diffusers."))
    folder.mkdir()
    write_json(folder / "scheduler_config.json", {**json.loads(scheduler.to_json_string()), "_class_name": kind.__name__})


def _without_paths(trained: Trained) -> dict[str, Any]:
    """Return the config as plain values; whatever names files or folders of this machine is reset."""
    config: Any = OmegaConf.to_container(trained.cfg, resolve=True)
    for group, keys in PATHS.items():
        plain = PLAIN.get(group)
        for key in keys:
            if key in config[group]:
                config[group][key] = getattr(plain(), key) if plain else ""
    config |= {"runs": "runs", "init": None, "sketch": dict(DRAWN)}
    config["cache"]["folder"] = ""
    config["memory"] |= {"device": "auto", "force": True, "budget": 0.0}
    return config


def _networks(trained: Trained) -> list[Network]:
    """List the networks that a config can give a source for."""
    model, cfg = trained.last.model, trained.cfg
    name, folder = ("unet", "unet") if hasattr(model.backbone, "unet") else ("net", "transformer")
    text = getattr(model.text, "net", None)
    return [
        Network("backbone", getattr(model.backbone, name, None), folder, folder, f"backbone.{name}."),
        Network("text", text, cfg.text.get("subfolder", ""), "text_encoder", "text.net."),
        Network("hint", getattr(model.hint, "net", None), "", "hint", "hint.net."),
        Network("codec", getattr(trained.parts.codec, "net", None), cfg.codec.get("subfolder", ""), "vae"),
    ]


def _place(
    network: Network, trained: Trained, out: Path, options: Options, config: dict[str, Any],
    sources: dict[str, dict[str, str]],
) -> None:  # fmt: skip
    """Copy a network, or its config where the checkpoints hold all its weights, or name its source.

    Args:
        network: The network.
        trained: The run.
        out: The export's folder.
        options: copies and half are used.
        config: The config, changed in place.
        sources: The origins, changed in place.
    """
    group, settings = network.group, config[network.group]
    held = _is_held(network, trained)
    if not held and not options.copies:
        sources[group] = _named(network, trained)
        return
    if network.net is None:
        sources[group] = {"inside": HERE, "sha256": _copy_encoders(trained.last.model.text, out)}
        settings |= {"revision": "", "offline": True}
        return
    _save_config(network, out / network.target)
    inside = HERE if "subfolder" in settings or network.subfolder == network.target else network.target
    settings |= {key: network.target for key in ("subfolder",) if key in settings}
    settings |= {key: "" for key in ("revision", "variant") if key in settings} | {"offline": True}
    sources[group] = {"inside": inside}
    if held and "weights" in settings:
        settings["weights"] = RANDOM
        return
    settings |= {"weights": PRETRAINED} if "weights" in settings else {}
    file = out / network.target / _file_name(network)
    weights = _weights(network, trained)
    if isinstance(network.net, CLIPTextModel):  # transformers before 5 reads no other names, and 5 these too
        weights = {name: weights[plain] for plain, name in ldm.text_names(weights).items()}
    write_tensors(file, weights, {"format": "pt"}, options.half)
    sources[group]["sha256"] = checksum(file)


def _copy_encoders(text: TextEncoder, out: Path) -> str:
    """Copy a family's text encoders and tokenizers, file by file, to the same subfolders; returns their sha256."""
    assert isinstance(text, PipelineText), "other text encoders are one network"
    for file in text.files():
        target = out / file.parent.name / file.name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, target)
    return text.encoders.checksum()


def _is_held(network: Network, trained: Trained) -> bool:
    """Whether the checkpoint of every stage holds all weights of a network."""
    stages = trained.stages.values()
    names = [(s, name) for s in stages for name in s.model.state_dict() if name.startswith(network.prefix or ".")]
    return bool(names) and all(name in stage.own for stage, name in names)


def _weights(network: Network, trained: Trained) -> Tensors:
    """Return the weights that a network started from; those of the first stage where its checkpoint holds them."""
    assert network.net is not None, "several networks are named"
    if network.group == "codec":
        return {name: lazy(value) for name, value in network.net.state_dict().items()}
    unchanged = trained.unchanged(network.group, network.net, network.subfolder)
    names = [name for name in network.net.state_dict() if ".lora_" not in name]
    return {name: unchanged[name] for name in (name.replace(".base_layer.", ".") for name in names)}


def _named(network: Network, trained: Trained) -> dict[str, str]:
    """Name a source: a hub id as it is, of a local folder or file only the last part of its path."""
    given = str(trained.cfg[network.group].source)
    local = Path(given).expanduser().exists()
    name = Path(given).name if local else given
    recorded = trained.last.sources.get(network.group, {})
    if network.group == "codec":
        return {"name": name, "fingerprint": trained.parts.codec.fingerprint}
    return {"name": name, "sha256": recorded.get("sha256", "")}


def _save_config(network: Network, folder: Path) -> None:
    """Write config.json as diffusers or transformers does."""
    net: Any = network.net
    if hasattr(net, "save_config"):
        net.save_config(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    content = {**net.config.to_diff_dict(), "architectures": [type(net).__name__]}
    write_json(folder / "config.json", content)


def _file_name(network: Network) -> str:
    return WEIGHTS if hasattr(network.net, "save_config") else "model.safetensors"
