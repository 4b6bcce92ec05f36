"""The weights of a source, read tensor by tensor, without building the network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.tensor_files import LazyTensor, Tensors, lazy, read_lazily
from ragaf_exp.core.tensors import read_tensors, state_of
from ragaf_exp.models.loading import single_file
from ragaf_exp.models.loading.hub import Origin, checksum_of, fetch, file_source, weight_files
from ragaf_exp.models.part import Source

FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}  # in autoencoders of diffusers < 0.13


def pretrained_tensors(
    group: str, settings: Mapping[str, Any], network: nn.Module, subfolder: str, mapped: bool = False
) -> Tensors:
    """Return the weights of a config group's source by the names in its network.

    Args:
        group: The config group.
        settings: Its settings: source, revision, offline, variant.
        network: The network, on any device, for its names.
        subfolder: Subfolder of the source that holds the network; "" = the source itself.
        mapped: As in `read_lazily`.

    Returns:
        Name -> tensor.

    Raises:
        UserError: The source is missing or damaged, or does not fit the network.
    """
    origin = _origin(group, settings)
    if single_file.is_single_file(origin.source):
        path = Path(origin.source).expanduser()
        content = single_file.read_file(path, origin.key, mapped)
        tensors = single_file.select(single_file.network_kind(network), network, content)
        if tensors is None:
            raise UserError(f"{origin.key}: does not fit this run's network; restore the file that it was trained with")
        return tensors
    return _renamed(_of_folder(origin, subfolder, mapped), network.state_dict())


def pretrained_source(group: str, settings: Mapping[str, Any], subfolder: str) -> Source:
    """Return the record of a config group's source.

    Args:
        group: The config group.
        settings: Its settings: source, revision, offline, variant.
        subfolder: Subfolder of the source that holds the network; "" = the source itself.
    """
    origin = _origin(group, settings)
    if single_file.is_single_file(origin.source):
        return file_source(origin.source)
    return Source(origin.source, origin.revision, origin.variant, checksum_of(origin, subfolder))


def _origin(group: str, settings: Mapping[str, Any]) -> Origin:
    plain: dict[str, Any] = {key: settings.get(key) for key in ("revision", "offline", "variant") if settings.get(key)}
    return Origin(group, str(settings["source"]), **plain)


def _of_folder(origin: Origin, subfolder: str, mapped: bool) -> dict[str, LazyTensor]:
    inner = f"{subfolder}/*" if subfolder else "*"
    folder = fetch(origin, [f"{inner}.{end}" for end in ("json", "safetensors", "bin")]) / subfolder
    tensors: dict[str, LazyTensor] = {}
    for path in weight_files(folder, origin):
        tensors |= read_lazily(path, mapped) if path.suffix == ".safetensors" else _unpacked(path, origin.key)
    return tensors


def _unpacked(path: Path, key: str) -> dict[str, LazyTensor]:
    return {name: lazy(value) for name, value in state_of(read_tensors(path, key), path, key, path.name).items()}


def _renamed(tensors: dict[str, LazyTensor], known: Iterable[str]) -> dict[str, LazyTensor]:
    """Rename weights that earlier versions of diffusers and transformers named differently."""
    names = set(known)
    renamed = {}
    for name, tensor in tensors.items():
        candidates = (name, name.removeprefix("text_model."), f"text_model.{name}", _present(name))
        renamed[next((candidate for candidate in candidates if candidate in names), name)] = tensor
    return renamed


def _present(name: str) -> str:
    return re.sub(r"\.(query|key|value|proj_attn)\.", lambda match: f".{FORMER[match[1]]}.", name)
