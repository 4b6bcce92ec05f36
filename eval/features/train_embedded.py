"""Trains the network behind fd_embedded.

    python -m eval.features.train_embedded [steps=1000] [scenes=5000] [seed=0] [out=FILE]

It learns what embedded scenes show (which colour on which shape, fills, number of objects, background) and how an image
was blurred and made noisy, so that its features respond to content and to damage. Takes about a minute, on one core: the
order of sums depends on the number of threads. The same seed, PyTorch version and kind of processor give the same
bytes. Example:

    python -m eval.features.train_embedded out=embedded.safetensors
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from eval.features.embedded import POOLED, SIDE, WEIGHTS, Trunk
from ragaf_exp.config.command_line import guarded, parse_args
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.files import write_bytes
from ragaf_exp.core.types import Item
from ragaf_exp.core.writable import check_file
from ragaf_exp.data.sources.palette import BACKGROUND_COLOURS, BACKGROUND_NAMES, OBJECT_NAMES
from ragaf_exp.data.sources.scenes import FILLS, RADII, Scenes
from ragaf_exp.data.sources.shapes import SHAPE_NAMES

BATCH, RATE = 64, 3e-3
PAIRS, COUNTS, GROUNDS = len(OBJECT_NAMES) * len(SHAPE_NAMES), len(RADII), len(BACKGROUND_NAMES)
SPLIT = (PAIRS, len(FILLS), COUNTS, GROUNDS, 2)  # of the head's outputs; the last are blur and noise
REACH = 6  # pixels, of the widest blur
BLUR, NOISE = 3.0, 0.4  # the most damage: sigma in pixels, and in units of the range [-1, 1]


class Scene(NamedTuple):
    """A picture and what it shows."""

    image: Tensor  # (3,64,64) uint8
    pairs: Tensor  # (64,) float, 1 = an object of this colour and shape
    fills: Tensor  # (4,) float, 1 = an object with this fill
    count: int  # objects, less one
    ground: int  # which background


def described(item: Item) -> Scene:
    """A scene's picture and the targets to predict from it."""
    pairs, fills = torch.zeros(len(OBJECT_NAMES), len(SHAPE_NAMES)), torch.zeros(len(FILLS))
    for thing in item.objects:
        pairs[OBJECT_NAMES.index(thing.colour), SHAPE_NAMES.index(thing.shape)] = 1
        fills[FILLS.index(thing.fill)] = 1
    ground = np.median(item.image[item.object_map == 0], axis=0)
    nearest = min(BACKGROUND_NAMES, key=lambda name: float(np.abs(ground - BACKGROUND_COLOURS[name]).sum()))
    image = torch.from_numpy(item.image).permute(2, 0, 1).contiguous()
    return Scene(image, pairs.flatten(), fills, len(item.objects) - 1, BACKGROUND_NAMES.index(nearest))


def damaged(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blur a third of the pictures (B,3,H,W) in [-1,1] and add noise to a third.

    Returns the pictures and their levels of blur and noise (B,2), in [0,1].
    """
    which = torch.randint(3, (len(images),), generator=generator)
    much = torch.rand(len(images), generator=generator)
    levels = torch.stack([much * (which == 1), much * (which == 2)], 1)
    noise = torch.randn(images.shape, generator=generator) * (levels[:, 1] * NOISE)[:, None, None, None]
    images = images.clone()
    images[which == 1] = blurred(images[which == 1], much[which == 1] * BLUR)
    return (images + noise).clamp(-1, 1), levels


def blurred(images: Tensor, sigmas: Tensor) -> Tensor:
    """Blur each picture (B,3,H,W) with its own Gaussian sigma (B,) in pixels, up to 3."""
    offsets = torch.arange(-REACH, REACH + 1, dtype=torch.float32)
    kernels = torch.softmax(-(offsets**2) / (2 * sigmas[:, None].clamp(min=0.05) ** 2), 1)
    kernels = kernels.repeat_interleave(3, 0)[:, None]  # (3B,1,13)
    flat = images.reshape(1, -1, *images.shape[2:])  # one group for each picture's channel
    for kernel, pad in ((kernels[..., None], (0, 0, REACH, REACH)), (kernels[:, :, None], (REACH, REACH, 0, 0))):
        if len(kernel):
            flat = F.conv2d(F.pad(flat, pad, mode="replicate"), kernel, groups=len(kernel))
    return flat.view_as(images)


def loss_of(outputs: Tensor, scenes: list[Scene], levels: Tensor) -> Tensor:
    """Sum of the losses of all targets.

    Args:
        outputs: The head's, (B, sum(SPLIT)).
        scenes: The B scenes with their targets.
        levels: (B,2) levels of blur and noise, in [0,1].
    """
    pairs, fills, count, ground, damage = outputs.split(SPLIT, 1)
    return (
        F.binary_cross_entropy_with_logits(pairs, torch.stack([s.pairs for s in scenes])) * 8  # few of the 64 are present
        + F.binary_cross_entropy_with_logits(fills, torch.stack([s.fills for s in scenes]))
        + F.cross_entropy(count, torch.tensor([s.count for s in scenes]))
        + F.cross_entropy(ground, torch.tensor([s.ground for s in scenes]))
        + F.mse_loss(damage, levels) * 4
    )


def trained(steps: int, scenes: int, seed: int) -> tuple[Trunk, float]:
    """Train a trunk on embedded scenes.

    Args:
        steps: Optimizer steps.
        scenes: Number of training scenes.
        seed: Of scenes, weights and batches.

    Returns:
        The trunk and the mean loss of the last tenth of the steps.
    """
    source = Scenes(size=SIDE, seed=seed, train=scenes).split("train")
    known = [described(source[i]) for i in tqdm(range(scenes), desc="scenes", unit="scene")]
    with one_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        trunk = Trunk().to(memory_format=torch.channels_last)  # a third faster on a CPU
        losses = fit(trunk, known, steps, torch.Generator().manual_seed(seed))
    return trunk.eval(), float(np.mean(losses[-max(1, steps // 10) :]))


def fit(trunk: Trunk, known: list[Scene], steps: int, generator: torch.Generator) -> list[float]:
    """Train a trunk together with a head that is discarded afterwards.

    Args:
        trunk: Trained in place.
        known: The training scenes.
        steps: Optimizer steps.
        generator: Of batches and damage.

    Returns:
        The loss of every step.
    """
    head = nn.Sequential(nn.Linear(sum(POOLED), 256), nn.ReLU(), nn.Linear(256, sum(SPLIT)))
    optimizer = torch.optim.AdamW([*trunk.parameters(), *head.parameters()], RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    losses = []
    for _ in tqdm(range(steps), desc="training", unit="step"):
        rows = [known[i] for i in torch.randint(len(known), (BATCH,), generator=generator).tolist()]
        images, levels = damaged(torch.stack([r.image for r in rows]) / 127.5 - 1, generator)
        loss = loss_of(head(trunk(images)), rows, levels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def packed(trunk: Trunk) -> bytes:
    """The trunk's tensors as safetensors, in float16."""
    state = {k: v.half() if v.is_floating_point() else v for k, v in trunk.state_dict().items()}
    return save({k: v.contiguous() for k, v in state.items()})


def main() -> None:
    args = parse_args(sys.argv[1:], {"steps": int, "scenes": int, "seed": int, "out": str})
    steps, scenes, seed = args.get("steps", 1000), args.get("scenes", 5000), args.get("seed", 0)
    for name, value, low in (("steps", steps, 1), ("scenes", scenes, 1), ("seed", seed, 0)):
        if value < low:
            raise UserError(f"{name}={value}: must be at least {low}")
    out = Path(args.get("out", WEIGHTS))
    check_file(out, "out")
    trunk, loss = trained(steps, scenes, seed)
    content = packed(trunk)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, content)
    print(f"{out}: {len(content):,} bytes, final loss {loss:.3f}")


if __name__ == "__main__":
    guarded(main)
