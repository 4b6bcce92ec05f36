"""Transfer of weights between models that differ in their task: what fits is taken, the rest stays as initialised."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ragaf_exp.models.part import PretrainedModule

Rows = Mapping[str, list[tuple[int, int]]]
NO_ROWS: Rows = {}
SHOWN = 3  # names listed in a message


@dataclass
class Transfer:
    """The names of the parameters that were taken, taken in part, not available, and not used."""

    whole: list[str] = field(default_factory=list)
    part: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        total = len(self.whole) + len(self.part) + len(self.new)
        lists = {"in part": self.part, "not in it": self.new, "not used": self.unused}
        more = [f"{title}: {some(names)}" for title, names in lists.items() if names]
        return "; ".join([f"{len(self.whole)} of {total} tensors taken", *more])


def transfer(
    model: nn.Module, state: Mapping[str, Tensor], rows: Rows = NO_ROWS, fixed: Collection[str] = ()
) -> Transfer:  # fmt: skip
    """Copy into a model every tensor of another model's state that fits.

    A tensor with more input channels takes the other's for its first ones, since tasks add theirs behind the sketch.

    Args:
        model: The model, changed in place.
        state: The other model's state dict.
        rows: Of tables by name, the pairs (row here, row there) that have the same meaning.
        fixed: Names of tensors that stay as they are.

    Returns:
        What was taken.
    """
    result = Transfer(unused=sorted(state.keys() - model.state_dict().keys()))
    known = {name: value for name, value in model.state_dict().items() if name not in fixed}
    for name, target in known.items():
        if name not in state:
            result.new.append(name)
        elif rows.get(name):
            _copy_rows(target, state[name], rows[name])
            result.part.append(name)
        elif target.shape == state[name].shape:
            target.copy_(state[name])
            result.whole.append(name)
        elif _has_more_inputs(target, state[name]):
            target[:, : state[name].shape[1]].copy_(state[name])
            result.part.append(name)
        else:
            result.new.append(name)
    _mark_changed(model, [*result.whole, *result.part])
    return result


def _copy_rows(target: Tensor, source: Tensor, pairs: list[tuple[int, int]]) -> None:
    here, there = (torch.tensor(column) for column in zip(*pairs, strict=True))
    target[here] = source[there].to(target)


def _has_more_inputs(target: Tensor, source: Tensor) -> bool:
    """Whether two weights of layers differ in the number of input channels alone, and the target has more."""
    alike = target.ndim == source.ndim >= 2 and target.shape[0] == source.shape[0] and target.shape[2:] == source.shape[2:]
    return alike and target.shape[1] > source.shape[1]


def _mark_changed(model: nn.Module, names: list[str]) -> None:
    """Record that these weights are no longer those of a pretrained part's source, so that checkpoints contain them."""
    for part_name, part in model.named_children():
        if isinstance(part, PretrainedModule) and part.source is not None:
            start = f"{part_name}."
            part.changed = part.changed | {name[len(start) :] for name in names if name.startswith(start)}


def some(names: list[str]) -> str:
    """List the first names, and count the rest."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
