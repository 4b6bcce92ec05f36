"""Loading of networks in the folder layout of diffusers and transformers, from disk or from the hub.

On the meta device, in `without_weights()`, or with weights=none, at most a config is read and no weights are loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers.utils import logging as hf_logging

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import checksum
from ragaf_exp.core.tensors import brief
from ragaf_exp.models.loading import single_file
from ragaf_exp.models.loading.empty import on_meta
from ragaf_exp.models.part import Source

PRETRAINED = "pretrained"
RANDOM = "none"
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")  # names of weight files in diffusers and transformers
_sums: dict[tuple[str, int, int], str] = {}  # a run builds the same network several times


@dataclass(frozen=True)
class Origin:
    """The origin of a network as given in a config.

    Args:
        group: Config group, for messages.
        source: A folder or hub id in diffusers' layout.
        revision: Branch, tag or commit of a hub id; "" = main.
        offline: Never access the network.
        variant: Variant of the weight files, such as fp16; "" = the default files.
        weights: pretrained, or none for random weights.

    Raises:
        UserError: weights has another value.
    """

    group: str
    source: str
    revision: str = ""
    offline: bool = False
    variant: str = ""
    weights: str = PRETRAINED

    def __post_init__(self) -> None:
        if self.weights not in (PRETRAINED, RANDOM):
            raise UserError(f"{self.group}.weights={self.weights}: must be {PRETRAINED} or {RANDOM} (random, from the "
                            "config alone)")  # fmt: skip

    @property
    def key(self) -> str:
        """Config key and value of the source, for messages."""
        return f"{self.group}.source={self.source}"


def network(kind: type, origin: Origin, subfolder: str, builtin: dict[str, Any]) -> tuple[nn.Module, Source | None]:
    """Build a network and load its weights, if any.

    Args:
        kind: A class of diffusers or transformers.
        origin: Origin of the network.
        subfolder: Subfolder of the source that holds the network; "" = the source itself.
        builtin: The config to use with weights=none and no source.

    Returns:
        The network, and the source of its weights; None if they are random or on the meta device.

    Raises:
        UserError: A file is missing, damaged or does not fit the class.
    """
    if origin.weights == RANDOM and not origin.source:
        return _untrained(kind, builtin, origin), None
    if single_file.is_single_file(origin.source):
        net = single_file.read_network(kind, Path(origin.source).expanduser(), origin.key)
        return net, None if on_meta() else file_source(origin.source)
    config = read_config(origin, subfolder)
    if on_meta() and origin.weights == PRETRAINED and Path(origin.source).expanduser().is_dir():
        weight_files(Path(origin.source).expanduser() / subfolder, origin)  # a missing file must stop a run at once
    if origin.weights == RANDOM or on_meta():
        return _untrained(kind, config, origin), None
    return load(kind, origin, subfolder)


def _untrained(kind: Any, config: dict[str, Any], origin: Origin) -> nn.Module:
    """Build a network with random weights. Classes of transformers need a config object, those of diffusers a dict."""
    try:
        if hasattr(kind, "from_config"):
            return kind.from_config(config)
        return kind(kind.config_class.from_dict(config.get("text_config", config)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{origin.key}: its config.json does not fit {kind.__name__} ({brief(error)}); use a source with "
                        "such a network") from error  # fmt: skip


def load(kind: Any, origin: Origin, subfolder: str) -> tuple[nn.Module, Source]:
    """Load a network and check that the weights are complete.

    Args:
        kind: A class of diffusers or transformers.
        origin: Origin of the network.
        subfolder: Subfolder of the source that holds the network; "" = the source itself.

    Returns:
        The network in float32, and the source of its weights.

    Raises:
        UserError: A file is missing or damaged, or the weights do not fit the config.
    """
    wanted = [f"{subfolder}/*" if subfolder else "*"]
    folder = fetch(origin, [f"{w}.{end}" for w in wanted for end in ("json", "safetensors", "bin")])
    files = weight_files(folder / subfolder, origin)
    hf_logging.disable_progress_bar()
    try:
        net, report = kind.from_pretrained(
            folder, subfolder=subfolder, variant=origin.variant or None, local_files_only=True,
            use_safetensors=files[0].suffix == ".safetensors", output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # damaged files and wrong shapes make the loaders raise errors of many types
        raise UserError(f"{origin.key}: {files[0]} can't be loaded ({brief(error)}); fetch it again") from error
    for fault in ("missing_keys", "mismatched_keys"):
        if report[fault]:
            names = ", ".join(str(name) for name in sorted(report[fault], key=str)[:2])
            raise UserError(f"{origin.key}: {files[0]} does not fit its config.json ({len(report[fault])} "
                            f"{fault.replace('_', ' ')}, such as {names}); fetch it again")  # fmt: skip
    return net.float(), Source(origin.source, origin.revision, origin.variant, _checksum(files))


def file_source(path: str) -> Source:
    """Return the record of a single file as a source."""
    return Source(path, "", "", _checksum([Path(path).expanduser()]))


def read_config(origin: Origin, subfolder: str, name: str = "config.json") -> dict[str, Any]:
    """Read a JSON file of a source.

    Args:
        origin: Origin of the network.
        subfolder: Subfolder of the source that holds the file; "" = the source itself.
        name: Name of the file.

    Raises:
        UserError: The file is missing or damaged.
    """
    inner = f"{subfolder}/{name}" if subfolder else name
    path = fetch(origin, [inner]) / inner
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{origin.key}: holds no {inner}{_guess(path)}") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged ({brief(error)}); fetch it again") from error


def fetch(origin: Origin, patterns: list[str]) -> Path:
    """Return the local folder of a source. For a hub id, download the files that match the patterns unless offline.

    Raises:
        UserError: The source is missing or can't be downloaded.
    """
    given, source = Path(origin.source).expanduser(), origin.source
    if not source:
        also = "" if origin.group == "backbone" else " (or backbone.source, the default of the other groups)"
        raise UserError(f"{origin.group}.source=: missing; set it{also} to a folder in diffusers' layout or a hub id, or "
                        f"{origin.group}.weights=none for random weights")  # fmt: skip
    if given.is_dir():
        return given
    if given.exists():
        raise UserError(f"{origin.key}: a file; give a folder in diffusers' layout ({CONVERT})")
    if not re.fullmatch(r"[\w\-.]+(/[\w\-.]+)?", source) or source.startswith("."):
        raise UserError(f"{origin.key}: no such folder")
    from huggingface_hub import snapshot_download  # only hub ids need it
    from huggingface_hub.errors import LocalEntryNotFoundError

    from ragaf_exp.core.hub import reachable

    again = f"`hf download {source}{' --revision ' + origin.revision if origin.revision else ''}`"
    try:
        return Path(snapshot_download(
            source, revision=origin.revision or None, allow_patterns=patterns,
            local_files_only=origin.offline or not reachable(),
        ))  # fmt: skip
    except LocalEntryNotFoundError as error:
        why = f"{origin.group}.offline=true" if origin.offline else "the hub can't be reached"
        raise UserError(f"{origin.key}: no such folder, not in the local hub cache, and {why}; run {again} where there "
                        "is a network, or give a folder") from error  # fmt: skip
    except Exception as error:  # the hub's client raises errors of many types
        raise UserError(f"{origin.key}: no such folder, and the hub reports: {brief(error)}; check the name, "
                        f"{origin.group}.revision={origin.revision or 'main'} and your access, or give a folder") \
            from error  # fmt: skip


CONVERT = "diffusers' scripts/convert_original_stable_diffusion_to_diffusers.py converts a single-file checkpoint to one"


def _guess(path: Path) -> str:
    """Return the remedy for a folder that lacks a file."""
    root = path.parents[1]
    if any(root.glob("*.ckpt")) or any(root.glob("*.safetensors")):
        return f"; {CONVERT}"
    there = sorted(p.name for p in root.iterdir() if p.is_dir())[:8] if root.is_dir() else []
    return f" (it has: {', '.join(there) or 'no folders'}); fetch the whole folder again"


def weight_files(folder: Path, origin: Origin) -> list[Path]:
    """Return the weight files of a network, safetensors if there are any.

    Raises:
        UserError: There are no weight files.
    """
    v = re.escape(origin.variant)
    shard = r"(-\d+-of-\d+)?"
    name = rf"({'|'.join(STEMS)})" + (rf"(\.{v}{shard}|{shard}\.{v})" if v else shard)
    for end in ("safetensors", "bin"):
        files = sorted(path for path in folder.glob(f"*.{end}") if re.fullmatch(rf"{name}\.{end}", path.name))
        if files:
            return files
    there = ", ".join(sorted(p.name for p in folder.glob("*") if p.suffix in (".safetensors", ".bin")))
    variant = f" of {origin.group}.variant={origin.variant}" if v else ""
    fix = f"it has: {there}; set {origin.group}.variant" if there else "fetch the whole folder again"
    raise UserError(f"{origin.key}: {folder} holds no weights{variant}, such as {STEMS[0]}.safetensors ({fix})")


def fingerprint(module: nn.Module, *settings: object) -> str:
    """Return the sha256 of a module's weights, their names and shapes, and of settings that change its output."""
    digest = hashlib.sha256(repr(settings).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def checksum_of(origin: Origin, subfolder: str) -> str:
    """Return the sha256 of a network's weight files."""
    inner = f"{subfolder}/*" if subfolder else "*"
    folder = fetch(origin, [f"{inner}.{end}" for end in ("json", "safetensors", "bin")])
    return _checksum(weight_files(folder / subfolder, origin))


def _checksum(files: list[Path]) -> str:
    """Return the sha256 of a file, or of the sums of several; remembered as long as size and time are unchanged."""
    sums = []
    for path in files:
        facts = path.stat()
        key = (str(path.resolve()), facts.st_size, facts.st_mtime_ns)
        if key not in _sums:
            _sums[key] = checksum(path)
        sums.append(_sums[key])
    return sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
