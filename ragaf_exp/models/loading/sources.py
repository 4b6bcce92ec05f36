"""Checkpoints without the unchanged weights of a source, which are identified by name and checksum instead."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ragaf_exp.core.errors import UserError
from ragaf_exp.models.loading.tuning import map_lora_name
from ragaf_exp.models.part import PretrainedModule, Source


def own_state(model: nn.Module) -> dict[str, Tensor]:
    """Return a model's state dict without the weights that are unchanged since they were loaded from a source."""
    held = {f"{name}.{key}" for name, part in _sourced(model) for key in part.state_dict() if key not in part.changed}
    return {key: value for key, value in model.state_dict().items() if key not in held}


def load_own(model: nn.Module, state: dict[str, Tensor], sources: dict[str, dict[str, str]]) -> None:
    """Load the result of `own_state` into a model whose parts have been loaded from their sources.

    Args:
        model: The model.
        state: Its state dict without the weights of sources.
        sources: Part -> recorded origin of its weights.

    Raises:
        RuntimeError: The state belongs to another model.
        UserError: A source's weights differ from those that the run was trained with.
    """
    for name, part in _sourced(model):
        if part.source is not None:
            check_source(name, part.source, sources.get(name))
    missing, unexpected = model.load_state_dict(state, strict=False)
    roots = tuple(f"{name}." for name, _ in _sourced(model))
    absent = [key for key in missing if not key.startswith(roots)] if roots else missing
    if absent or unexpected:
        raise RuntimeError(f"not this model's state: {(absent + unexpected)[0]}")
    for name, part in _sourced(model):
        part.changed = part.changed | {key[len(name) + 1 :] for key in state if key.startswith(f"{name}.")}


def share_identical_weights(one: nn.Module, two: nn.Module) -> None:
    """Share the memory of weights that are equal in both models, on the device of `one`; those without values are not."""
    known = dict(two.named_parameters())
    names = set(known)
    held = {map_lora_name(name, names): parameter for name, parameter in one.named_parameters()}
    for name, parameter in known.items():
        other = held.get(name)
        if other is None or other.is_meta or parameter.is_meta or other.shape != parameter.shape:
            continue
        if torch.equal(other, parameter.to(other.device)):
            parameter.data = other.data


def sources_of(model: nn.Module) -> dict[str, dict[str, str]]:
    """Map the name of each pretrained part to the origin of its weights."""
    return {name: source.facts() for name, part in _sourced(model) if (source := part.source) is not None}


def _sourced(model: nn.Module) -> list[tuple[str, PretrainedModule]]:
    return [
        (name, part)
        for name, part in model.named_children()
        if isinstance(part, PretrainedModule) and part.source is not None
    ]


def check_source(name: str, source: Source, recorded: Mapping[str, str] | None) -> None:
    """Raise UserError unless a source has the weights that a run was trained with.

    Args:
        name: The config group.
        source: The source as it is now.
        recorded: Its facts at the time; None if there are none.
    """
    if recorded is not None and recorded["sha256"] != source.sha256:
        raise UserError(f"{name}.source={source.source}: its weights are not those that this run was trained with "
                        f"(sha256 {recorded['sha256'][:12]}, now {source.sha256[:12]}); restore them")  # fmt: skip
