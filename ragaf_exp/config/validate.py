"""Every key of a composed config is checked before any work: known, of the right type, and in its range."""

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
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.omegaconf_errors import one_line


def validate(cfg: DictConfig, keep: bool = True, resolve: bool = True) -> DictConfig:
    """The config with types converted, defaults filled in, references to other keys resolved and ~ expanded in paths.

    keep: leave what is given as it is; a config that nobody needs any more is checked sooner without.
    resolve: False for a config of a run folder, perhaps a stranger's, in which there is nothing to resolve.
    UserError naming the key and the known ones.
    """
    cfg = copy.deepcopy(cfg) if keep else cfg
    if resolve:
        OmegaConf.resolve(cfg)
    known = [*SCALARS, *PLAIN, *BUILT]
    if "auto" in (cfg.get("memory") or {}):
        raise UserError("memory=auto: looks at the machine that runs; it goes with ragaf_exp.run and .plan, as a word of "
                        "the command line; here name a profile, as memory=16gb")  # fmt: skip
    for key in cfg:
        if key not in known:
            raise UserError(f"{key}: unknown key; known are {', '.join(known)}")
    if "cluster" not in cfg:  # in runs from before there was one, or of a profile without
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
    _together(out)
    return out


CHECKED: dict[tuple[str, str], dict[str, Any]] = {}  # groups as they were given, and checked: a sweep's members share most
MOST = 4096  # of them


def _group(key: str, node: DictConfig) -> dict[str, Any]:
    """The checked content of a group."""
    given = key, repr(OmegaConf.to_container(node))
    if given not in CHECKED:
        schema = PLAIN[key] if key in PLAIN else _schema(node.get("_target_"), key)
        if len(CHECKED) >= MOST:
            CHECKED.clear()
        checked = OmegaConf.to_container(_merge(schema, node, key))
        check(schema, checked, key)
        CHECKED[given] = checked
    return CHECKED[given]


def _schema(target: object, key: str) -> type:
    """The schema of a group with a `_target_`: from the source where that says it plainly, or else by an import."""
    if isinstance(target, str) and target.startswith(ALLOWED):
        with suppress(Unreadable):
            return schema_of(target, read_constructor(target))
    return constructor_schema(locate(target, key))


def constructor_schema(target: type) -> type:
    """A dataclass of the constructor's parameters that have defaults; those without are wiring, not config."""
    hints = typing.get_type_hints(target.__init__, include_extras=True)
    found = inspect.signature(target.__init__).parameters.items()
    signature = [(name, hints[name], p.default) for name, p in found if name != "self" and p.default is not p.empty]
    return schema_of(f"{target.__module__}.{target.__name__}", signature)


def schema_of(target: str, signature: Signature) -> type:
    """A dataclass with the parameters as fields."""
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
        raise UserError(one_line(error, key)) from error


def _scalar(key: str, value: Any, kind: Any) -> Any:
    wanted = plain(kind)
    if value is None:
        return None if key == "init" else wanted()
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        if wanted is str:
            return str(value)
        raise UserError(f"{key}={value}: must be of type {wanted.__name__}")
    check_value(kind, value, key)
    return value


def _name(name: str) -> None:
    if not name or name.startswith(".") or "/" in name or name == "latest":
        raise UserError(f"name={name}: must be a folder's name, without /, and not latest; take default")


def _together(cfg: DictConfig) -> None:
    """What can't be combined."""
    if cfg.stage.batch % cfg.stage.accumulate:
        raise UserError(f"stage.accumulate={cfg.stage.accumulate}: must divide stage.batch={cfg.stage.batch}")
    _progressive(cfg)
    _sharded(cfg)
    _in_backward(cfg)


def _progressive(cfg: DictConfig) -> None:
    """What a stage 1 of smaller images can't be combined with."""
    if cfg.stage.coarse.scale == 1:
        return
    if cfg.stage.refine.coarse_input:
        raise UserError("stage.refine.coarse_input=true: stage 1's latent has another size; set stage.coarse.scale=1")
    if cfg.memory.features != "none":
        raise UserError(f"memory.features={cfg.memory.features}: latents are kept at one resolution; "
                        "set stage.coarse.scale=1")  # fmt: skip


def _sharded(cfg: DictConfig) -> None:
    """What memory.shard can't be combined with."""
    memory = cfg.memory
    if not memory.shard:
        return
    mends = {
        "tune": (memory.tune != "full", "full", "what little else is trained needs no sharding"),
        "optimizer": (memory.optimizer == "adamw8bit", "adamw", "bitsandbytes does not know of parts"),
        "precision": (memory.precision == "fp16", "bf16", "a loss scale is each process's own"),
        "step_in_backward": (memory.step_in_backward, "false", "gradients are averaged after it"),
        "channels_last": (memory.channels_last, "false", "parts are cut from plainly laid out weights"),
        "compile": (memory.compile, "false", "not tried together"),
        "features": (memory.features == "all" and memory.offload, "none", "a part of the model can't rest"),
    }
    for key, (refused, mend, why) in mends.items():
        if refused:
            raise UserError(f"memory.shard=true: not with memory.{key}={memory[key]} ({why}); take memory.{key}={mend}")
    if cfg.optim.muon > 0:
        raise UserError("memory.shard=true: not with optim.muon (which turns whole matrices); take optim=adamw")


def _in_backward(cfg: DictConfig) -> None:
    """What memory.step_in_backward can't be combined with: it leaves no gradient behind."""
    if not cfg.memory.step_in_backward:
        return
    if cfg.optim.clip > 0:
        raise UserError("memory.step_in_backward=true: no gradient is left to be clipped; set optim.clip=0")
    if cfg.stage.accumulate > 1:
        raise UserError("memory.step_in_backward=true: no gradient is left to be accumulated; set stage.accumulate=1")
    if cfg.memory.precision == "fp16":
        raise UserError("memory.step_in_backward=true: a step can't be taken back when float16 overflows; "
                        "take memory.precision=bf16")  # fmt: skip
