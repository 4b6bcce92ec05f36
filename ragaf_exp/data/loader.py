"""From items to batches: preparation of sketch, regions and graph, padding, and the order of a run's batches."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ragaf_exp.core.errors import UserError
from ragaf_exp.core.randomness import derive
from ragaf_exp.core.types import Batch, Crop, Example, Graph, Item, Regions
from ragaf_exp.data.edits import edit_tensors

SIGNAL_WAIT = 2.0  # s, within which the signal of a worker's end arrives

# the number of workers is the user's choice: as they also wait for files, more than one per core can be right
warnings.filterwarnings("ignore", message="This DataLoader will create")


class Preparer:
    """Item -> Example, by the configured sketch extractor, region extractor and graph builder.

    Args:
        sketch: (image (H,W,3) uint8, drawing or None) -> sketch (H,W) float32 in [0,1], 1 = stroke.
        regions: Sketch -> regions.
        graph: Regions -> graph.
    """

    def __init__(
        self, sketch: Callable[..., np.ndarray], regions: Callable[[np.ndarray], Regions],
        graph: Callable[[Regions], Graph],
    ):  # fmt: skip
        self.sketch, self.regions, self.graph = sketch, regions, graph

    def __call__(self, item: Item) -> Example:
        return self.from_sketch(item, self.sketch(item.image, item.drawing))

    def from_sketch(self, item: Item, sketch: np.ndarray) -> Example:
        """Prepare the item with a given sketch (H,W) instead of the extracted one."""
        regions = self.regions(sketch)
        return Example(item, sketch, regions, self.graph(regions))


class Examples(Dataset):
    """The examples of a split.

    Args:
        items: The split.
        prepare: Item -> example.
        cache_mb: MiB of examples cached in memory, so that a second epoch computes nothing.
    """

    def __init__(self, items: Sequence[Item], prepare: Preparer, cache_mb: float = 0):
        self.items, self.prepare = items, prepare
        self.cache: dict[int, Example] = {}
        self.cache_left = cache_mb * 2**20  # bytes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        if index in self.cache:
            return self.cache[index]
        example = self.prepare(self.items[index])
        if self.cache_left > 0:
            self.cache[index] = example
            self.cache_left -= _bytes(example)
        return example

    def first(self, count: int) -> list[Example]:
        """Return the first `count` examples, or all if there are fewer."""
        return [self[i] for i in range(min(count, len(self)))]

    def at(self, step: int, index: int) -> Example:
        """Return an example as a training step uses it."""
        return self[index]


class Augmented(Examples):
    """A split whose sketches are augmented in training, as a function of (seed, step, item); by index they are not.

    Regions and graph are computed from the augmented sketch, and not cached.

    Args:
        items: The split.
        prepare: Item -> example.
        cache_mb: MiB of examples before augmentation that are cached in memory.
        augment: (sketch (H,W), generator) -> sketch.
        seed: The run's seed.
    """

    def __init__(
        self, items: Sequence[Item], prepare: Preparer, cache_mb: float,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray], seed: int,
    ):  # fmt: skip
        super().__init__(items, prepare, cache_mb)
        self.augment, self.seed = augment, seed

    def at(self, step: int, index: int) -> Example:
        plain = self[index]
        rng = np.random.default_rng(derive(self.seed, "augment", step, plain.item.key))
        return self.prepare.from_sketch(plain.item, self.augment(plain.sketch, rng))


def _bytes(example: Example) -> int:
    item, graph = example.item, example.graph
    arrays = (item.image, item.drawing, item.object_map, example.sketch, example.regions.labels,
              graph.nodes, graph.edges, graph.edge_mask, *item.conditions.values())  # fmt: skip
    return sum(array.nbytes for array in arrays if array is not None)


def collate(examples: list[Example], spans: bool = False) -> Batch:
    """Pad examples of one size into a batch.

    Args:
        examples: The examples.
        spans: Include the regions' caption spans, for annotated items.
    """
    count = max(1, *(len(e.graph.nodes) for e in examples))
    nodes, edges = examples[0].graph.nodes.shape[-1], examples[0].graph.edges.shape[-1]
    images = np.stack([e.item.image for e in examples]).transpose(0, 3, 1, 2)
    return Batch(
        keys=[e.item.key for e in examples],
        captions=[e.item.caption for e in examples],
        image=torch.from_numpy(images).float() / 127.5 - 1,
        sketch=torch.from_numpy(np.stack([e.sketch for e in examples]))[:, None].float(),
        labels=torch.from_numpy(np.stack([e.regions.labels for e in examples])).long(),
        nodes=_pad([e.graph.nodes for e in examples], (count, nodes)),
        node_mask=_pad([np.ones(len(e.graph.nodes), bool) for e in examples], (count,)),
        edges=_pad([e.graph.edges for e in examples], (count, count, edges)),
        edge_mask=_pad([e.graph.edge_mask for e in examples], (count, count)),
        spans=_pad([region_spans(e) for e in examples], (count, 2)) if spans else None,
        edits=edit_tensors(examples, count),
        crops=_crops([e.item.crop for e in examples]),
        conditions={name: _as_maps([e.conditions[name] for e in examples]) for name in examples[0].conditions},
        present=_present(examples),
        task=None if examples[0].item.task is None else torch.tensor([e.item.task for e in examples]),
    )


def _crops(crops: list[Crop | None]) -> torch.Tensor | None:
    """What is cut off each item's picture, (B,4) float32; None where nothing is known to be."""
    if not any(crops):
        return None
    return torch.tensor([(0.0,) * 4 if crop is None else crop.cut for crop in crops])


def _present(examples: list[Example]) -> dict[str, torch.Tensor]:
    """Condition -> (B,) bool, for the conditions that some example does not have."""
    absent = sorted(set().union(*(e.absent for e in examples)))
    return {name: torch.tensor([name not in e.absent for e in examples]) for name in absent}


def _as_maps(arrays: list[np.ndarray]) -> torch.Tensor:
    """Images (H,W,3) uint8 -> (B,3,H,W) in [-1,1]; maps (H,W) or (H,W,C) float -> (B,C,H,W)."""
    stacked = np.stack([array if array.ndim == 3 else array[..., None] for array in arrays]).transpose(0, 3, 1, 2)
    maps = torch.from_numpy(np.ascontiguousarray(stacked)).float()
    return maps / 127.5 - 1 if stacked.dtype == np.uint8 else maps


def region_spans(example: Example) -> np.ndarray:
    """Return each region's caption span (N,2) int64: that of the object covering over half of it, (0,0) without one.

    A region with a prompt reads that and nothing of the caption, so it has none.
    """
    owners = region_objects(example)
    spans = np.array([*(thing.span for thing in example.item.objects), (0, 0)], np.int64)[owners]
    prompted = [bool(edit.prompt) for edit in example.edits.regions] if example.edits is not None else []
    spans[: len(prompted)][np.array(prompted, bool)] = 0
    return spans


def region_objects(example: Example) -> np.ndarray:
    """Return the index of the object that covers over half of each region, (N,) int64, -1 = none."""
    item, count = example.item, len(example.graph.nodes)
    owners = np.full(count, -1, np.int64)
    if not item.objects or count == 0:
        return owners
    objects = 1 + max(o.label for o in item.objects)
    inside = example.regions.labels >= 0
    pairs = example.regions.labels[inside].astype(np.int64) * objects + item.object_map[inside]
    pixels = np.bincount(pairs, minlength=count * objects).reshape(count, objects)
    for index, thing in enumerate(item.objects):
        owners[2 * pixels[:, thing.label] > pixels.sum(1)] = index
    return owners


def _pad(arrays: list[np.ndarray], shape: tuple[int, ...]) -> torch.Tensor:
    out = np.zeros((len(arrays), *shape), arrays[0].dtype)
    for row, array in zip(out, arrays, strict=True):
        row[tuple(slice(n) for n in array.shape)] = array
    return torch.from_numpy(out)


def batch_order(length: int, batch: int, seed: int, steps: range, rank: int = 0, ranks: int = 1) -> Iterator[list[int]]:
    """Yield the item indices of each step's batch for one rank, a function of (seed, step, rank).

    Batches are cut from a stream of permutations of all items, one per epoch.

    Args:
        length: Number of items.
        batch: Items per step over all ranks; may exceed `length`.
        seed: The run's seed.
        steps: The steps to yield.
        rank: This process's rank.
        ranks: Number of processes.
    """
    for step in steps:
        epochs, positions = np.divmod(np.arange(step * batch, (step + 1) * batch)[rank::ranks], length)
        yield [int(_permutation(length, seed, int(e))[p]) for e, p in zip(epochs, positions, strict=True)]


@lru_cache(maxsize=4)
def _permutation(length: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(derive(seed, "order", epoch)).permutation(length)


class _StepExamples(Dataset):
    """Examples by (step, index), so that loader workers get the step with every item."""

    def __init__(self, examples: Examples):
        self.examples = examples

    def __getitem__(self, key: tuple[int, int]) -> Example | UserError:
        try:
            return self.examples.at(*key)
        except UserError as error:  # PyTorch would raise it again with the worker's traceback as its text
            return error


class StepLoader:
    """Batches in the order of the steps. Iterating raises UserError for bad data, in a worker or not."""

    def __init__(self, loader: DataLoader):
        self.loader = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch


def step_loader(
    examples: Examples,
    order: Iterable[list[int]],
    workers: int = 0,
    start: int = 0,
    spans: bool = False,
    pin: bool = False,
    to_batch: Callable[..., Batch] = collate,
) -> StepLoader:
    """Load one batch per step.

    Args:
        examples: The split.
        order: Item indices of each step's batch.
        workers: Number of worker processes; 0 loads in this process.
        start: Number of the first step.
        spans: As in `collate`.
        pin: Pin the batches' memory, for copies to a device.
        to_batch: Examples -> batch, with the signature of `collate`.
    """
    keys = ([(step, index) for index in rows] for step, rows in enumerate(order, start))
    whole = partial(_collated, partial(to_batch, spans=spans))
    return StepLoader(DataLoader(_StepExamples(examples), batch_sampler=keys, collate_fn=whole, num_workers=workers,
                                 pin_memory=pin, worker_init_fn=ignore_signals))  # fmt: skip


def _collated(collate: Callable[[list[Example]], Batch], examples: list[Example | UserError]) -> Batch | UserError:
    faults = [example for example in examples if isinstance(example, UserError)]
    try:
        return faults[0] if faults else collate(examples)
    except UserError as error:
        return error


def ignore_signals(worker: int) -> None:
    """In a loader's worker: a signal to the whole process group, as Ctrl-C is, is for the process that trains.

    That process ends its workers once it has saved a checkpoint.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def workers_watched() -> Iterator[None]:
    """A killed loader worker, which PyTorch may notice anywhere in here, is a UserError of one line."""
    try:
        with _signal_of_its_end_awaited():
            yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        reason = str(error).partition(". ")[0].rstrip(". ")
        raise UserError(f"{reason}; where memory (or /dev/shm) ran out, take fewer stage.workers; the same command "
                        "continues from the last checkpoint") from error  # fmt: skip


@contextmanager
def _signal_of_its_end_awaited() -> Iterator[None]:
    """A worker's closed socket can be noticed before SIGCHLD, whose handler raises PyTorch's error: wait for it here.

    It would be raised anywhere later, such as while the run's status is written.
    """
    try:
        yield
    except (ConnectionError, EOFError, FileNotFoundError):
        time.sleep(SIGNAL_WAIT)
        raise
