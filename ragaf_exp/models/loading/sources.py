"""Weights that a checkpoint need not hold: those of a source, unchanged, are told by name and checksum."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.loading.tuning import map_lora_name
from ragaf_exp.models.part import PretrainedModule, Source


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """The state of a model but for what its parts' sources hold."""
    held = {f"{name}.{key}" for name, part in _sourced(model) for key in part.state_dict() if key not in part.changed}
    return {key: value for key, value in model.state_dict().items() if key not in held}


def load_own(model: nn.Module, state: dict[str, Tensor], sources: dict[str, dict[str, str]]) -> None:
    """The inverse, into a model whose parts have been loaded from their sources.

    RuntimeError where the state is another model's; UserError where a source's weights are not those of the run.
    """
    for name, part in _sourced(model):
        if part.source is not None:
            _check(name, part.source, sources.get(name))
    missing, unexpected = model.load_state_dict(state, strict=False)
    roots = tuple(f"{name}." for name, _ in _sourced(model))
    absent = [key for key in missing if not key.startswith(roots)] if roots else missing
    if absent or unexpected:
        raise RuntimeError(f"not this model's state: {(absent + unexpected)[0]}")
    for name, part in _sourced(model):
        part.changed = part.changed | {key[len(name) + 1 :] for key in state if key.startswith(f"{name}.")}


def share_identical_weights(one: nn.Module, two: nn.Module) -> None:
    """Let weights of `two` that equal those of the same name in `one` share their memory, on one's device."""
    known = dict(two.named_parameters())
    names = set(known)
    held = {map_lora_name(name, names): parameter for name, parameter in one.named_parameters()}
    for name, parameter in known.items():
        other = held.get(name)
        if other is not None and other.shape == parameter.shape and torch.equal(other, parameter.to(other.device)):
            parameter.data = other.data


def sources_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """PretrainedModule -> where its weights came from."""
    return {name: source.facts() for name, part in _sourced(model) if (source := part.source) is not None}


def _sourced(model: nn.Module) -> list[tuple[str, PretrainedModule]]:
    return [
        (name, part)
        for name, part in model.named_children()
        if isinstance(part, PretrainedModule) and part.source is not None
    ]


def _check(name: str, source: Source, recorded: dict[str, str] | None) -> None:
    if recorded is not None and recorded["sha256"] != source.sha256:
        raise UserError(f"{name}.source={source.source}: its weights are not those that this run was trained with "
                        f"(sha256 {recorded['sha256'][:12]}, now {source.sha256[:12]}); restore them")  # fmt: skip
