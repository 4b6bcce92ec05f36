"""Validation of a composed config before any work: every key is known, of the right type, and in its range."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import typing
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ragaf_exp.config.build import ALLOWED, locate
from ragaf_exp.config.constructors import Signature, Unreadable, read_constructor
from ragaf_exp.config.paths import expand_all
from ragaf_exp.config.ranges import check, check_value, plain
from ragaf_exp.config.schema import BUILT, NESTED, PLAIN, SCALARS
from ragaf_exp.config.stages import chain, check_stages, plain_schema
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.omegaconf_errors import one_line


def validate(cfg: DictConfig, keep: bool = True, resolve: bool = True) -> DictConfig:
    """Check a config and complete it.

    Args:
        cfg: The composed config.
        keep: Work on a copy. Without it the check is faster, and `cfg` must not be used again.
        resolve: Resolve references to other keys; False for the config of a run folder, which may be untrusted.

    Returns:
        The config with types converted, defaults filled in and ~ expanded in paths.

    Raises:
        UserError: A key is unknown or missing, or its value is invalid; the message names the key.
    """
    cfg = copy.deepcopy(cfg) if keep else cfg
    if resolve:
        OmegaConf.resolve(cfg)
    known = [*SCALARS, *PLAIN, *BUILT]
    if "auto" in (cfg.get("memory") or {}):
        raise UserError("memory=auto: depends on the machine that runs; it works with ragaf_exp.run and .plan, on "
                        "the command line; here name a profile, as memory=16gb")  # fmt: skip
    for key in cfg:
        if key not in known:
            raise UserError(f"{key}: unknown key; known are {', '.join(known)}")
    if "cluster" not in cfg:  # runs of earlier versions, and memory profiles without one
        cfg = OmegaConf.merge({"cluster": {}}, cfg)
    for key in (*PLAIN, *BUILT):
        if not OmegaConf.is_dict(cfg.get(key)):
            group, value = NESTED.get(key, key), cfg.get(key)
            fault = f"{key}: missing" if value is None else f"{key}={value}: not a group's settings"
            raise UserError(f"{fault}; choose an option of the group conf/{group}/, as {group}=OPTION")
    checked: dict[str, Any] = {key: _scalar(key, cfg.get(key), kind) for key, kind in SCALARS.items()}
    for key in (*PLAIN, *BUILT):
        checked[key] = _group(key, cfg[key])
    out = OmegaConf.create(checked)
    expand_all(out)
    _name(out.name)
    _check_combinations(out)
    return out


CHECKED: dict[tuple[str, str], dict[str, Any]] = {}  # group as given -> checked: the members of a sweep share most groups
MAX_CHECKED = 4096  # entries
OF_BUCKETS = ("data.buckets", "data.upscale", "data.crop_input")


def _group(key: str, node: DictConfig) -> dict[str, Any]:
    """Check the content of a group, once per process."""
    given = key, repr(OmegaConf.to_container(node))
    if given not in CHECKED:
        schema = plain_schema(key, node) if key in PLAIN else _schema(node.get("_target_"), key)
        if len(CHECKED) >= MAX_CHECKED:
            CHECKED.clear()
        checked = OmegaConf.to_container(_merge(schema, node, key))
        check(schema, checked, key)
        CHECKED[given] = checked
    return CHECKED[given]


def _schema(target: object, key: str) -> type:
    """Return the schema of a group with a `_target_`: read from the source where possible, else by an import."""
    if isinstance(target, str) and target.startswith(ALLOWED):
        with suppress(Unreadable):
            return schema_of(target, read_constructor(target))
    return constructor_schema(locate(target, key))


def constructor_schema(target: type) -> type:
    """Make a dataclass of the constructor's parameters that have defaults; those without are wiring, not config."""
    hints = typing.get_type_hints(target.__init__, include_extras=True)
    items = inspect.signature(target.__init__).parameters.items()
    signature = [(name, hints[name], p.default) for name, p in items if name != "self" and p.default is not p.empty]
    return schema_of(f"{target.__module__}.{target.__name__}", signature)


def schema_of(target: str, signature: Signature) -> type:
    """Make a dataclass with the parameters of a constructor as fields."""
    fields = [("_target_", str, dataclasses.field(default=target))]
    fields += [(name, kind, _default(default)) for name, kind, default in signature]
    return dataclasses.make_dataclass(target.rpartition(".")[2], fields)


def _default(value: Any) -> Any:
    if isinstance(value, tuple | list | dict):
        content = list(value) if isinstance(value, tuple) else value
        return dataclasses.field(default_factory=lambda: content)
    return dataclasses.field(default=value)


def _merge(schema: type, node: DictConfig, key: str) -> DictConfig:
    try:
        return OmegaConf.merge(OmegaConf.structured(schema), node)
    except OmegaConfBaseException as error:
        if f"{key}.{error.key}" in OF_BUCKETS and error.key not in typing.get_type_hints(schema):
            raise UserError(f"{key}.{error.key}: all pictures of this source have one size; leave it out") from error
        raise UserError(one_line(error, key)) from error


def _scalar(key: str, value: Any, kind: Any) -> Any:
    scalar_type = plain(kind)
    if value is None:
        return None if key == "init" else scalar_type()
    if not isinstance(value, scalar_type) or (isinstance(value, bool) and scalar_type is not bool):
        if scalar_type is str:
            return str(value)
        raise UserError(f"{key}={value}: must be of type {scalar_type.__name__}")
    check_value(kind, value, key)
    return value


def _name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name or name == "latest":
        raise UserError(f"name={name}: must be a folder's name, without /, and not latest; take default")


def _check_combinations(cfg: DictConfig) -> None:
    """Refuse values that can't be combined."""
    check_stages(cfg.stage)
    if cfg.stage.batch % cfg.stage.accumulate and not cfg.stage.tokens:
        raise UserError(f"stage.accumulate={cfg.stage.accumulate}: must divide stage.batch={cfg.stage.batch}")
    if cfg.data.get("buckets") and cfg.stage.curriculum > 0:
        raise UserError("data.buckets=true: not with stage.curriculum, which mixes sizes; set stage.curriculum=0")
    _check_progressive(cfg)
    _check_base(cfg)
    _check_sharded(cfg)
    _check_in_backward(cfg)
    _check_checkpoints(cfg)


def _check_progressive(cfg: DictConfig) -> None:
    """Refuse options that do not work with a stage on smaller images."""
    small = [stage.name for stage in chain(cfg) if stage.scale > 1]
    if small and cfg.memory.features != "none":
        raise UserError(f"memory.features={cfg.memory.features}: latents are cached at one resolution; "
                        f"set stage.{small[0]}.scale=1")  # fmt: skip


def _check_base(cfg: DictConfig) -> None:
    """Refuse a storage of frozen weights that the device has no kernels for."""
    if cfg.memory.base in ("float8", "nf4") and cfg.memory.device == "cpu":
        raise UserError(f"memory.base={cfg.memory.base}: needs a CUDA device, and memory.device=cpu; take "
                        "memory.base=bfloat16")  # fmt: skip


def _check_sharded(cfg: DictConfig) -> None:
    """Refuse options that do not work with memory.shard."""
    memory = cfg.memory
    if not memory.shard:
        return
    conflicts = {  # key -> (whether it conflicts, the value to take, the reason)
        "tune": (memory.tune != "full", "full", "partial tuning trains too little to need sharding"),
        "optimizer": (memory.optimizer == "adamw8bit", "adamw", "bitsandbytes does not support sharded parameters"),
        "precision": (memory.precision == "fp16", "bf16", "each process would have a different loss scale"),
        "step_in_backward": (memory.step_in_backward, "false", "gradients are averaged after it"),
        "channels_last": (memory.channels_last, "false", "shards are cut from contiguous weights"),
        "compile": (memory.compile, "false", "the combination is untested"),
        "features": (memory.features == "all" and memory.offload, "none", "a part of the model can't be offloaded"),
    }
    for key, (conflict, remedy, why) in conflicts.items():
        if conflict:
            raise UserError(f"memory.shard=true: not with memory.{key}={memory[key]} ({why}); take memory.{key}={remedy}")
    if cfg.optim.muon > 0:
        raise UserError("memory.shard=true: not with optim.muon (which needs whole matrices); take optim=adamw")


def _check_checkpoints(cfg: DictConfig) -> None:
    """Refuse to offload checkpoints that there are none of, or that a compiled block would hold."""
    if cfg.memory.offload_checkpoints and not cfg.memory.checkpointing:
        raise UserError("memory.offload_checkpoints=true: there are none to offload; set memory.checkpointing=true")
    if cfg.memory.offload_checkpoints and cfg.memory.compile:
        raise UserError("memory.offload_checkpoints=true: not with memory.compile (the combination is untested); set "
                        "memory.compile=false")  # fmt: skip


def _check_in_backward(cfg: DictConfig) -> None:
    """Refuse options that need gradients after the backward pass, as memory.step_in_backward frees them."""
    if not cfg.memory.step_in_backward:
        return
    if cfg.optim.clip > 0:
        raise UserError("memory.step_in_backward=true: no gradient is left to clip; set optim.clip=0")
    if cfg.stage.accumulate > 1:
        raise UserError("memory.step_in_backward=true: no gradient is left to accumulate; set stage.accumulate=1")
    if cfg.memory.precision == "fp16":
        raise UserError("memory.step_in_backward=true: a step can't be skipped when float16 overflows; "
                        "take memory.precision=bf16")  # fmt: skip
