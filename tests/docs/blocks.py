"""Command blocks of the README and the guide, and the files that they name."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
FENCE = re.compile(r"(?P<mark><!--[^>]*-->\s*\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)
NOT_RUN = re.compile(r"<!-- not run: \S.*-->\s*")
SHELL = ("bash", "sh", "shell", "console")
COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class Block:
    """A fenced block. `skipped`: a comment in front of it states why it is not run."""

    where: str  # page:line, the test's name
    language: str
    text: str
    skipped: bool

    def commands(self) -> list[list[str]]:
        """The arguments of each command. ValueError where the shell could not split them."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks_of(page: str, text: str) -> list[Block]:
    """Every fenced block of a page. ValueError where a comment in front of one is no reason."""
    result = []
    for match in FENCE.finditer(text):
        mark, line = match["mark"] or "", text.count("\n", 0, match.start("language")) + 1
        if mark and not NOT_RUN.fullmatch(mark):
            raise ValueError(f"{page}:{line}: {mark.strip()} is not <!-- not run: reason -->")
        result.append(Block(f"{page}:{line}", match["language"], match["text"], bool(mark)))
    return result


def all_blocks() -> list[Block]:
    """The blocks of every page."""
    return [block for page in PAGES for block in blocks_of(page.name, page.read_text())]


def fill(folder: Path, run: Path) -> None:
    """Write the files that the commands name into a folder. run: a finished run."""
    for name in ("tiny/1", "a/1f3c", "b/77d0", "a,b/1", "c/1"):
        shutil.copytree(run, folder / "runs" / name)
    (folder / "runs" / "latest").symlink_to("tiny/1")
    (folder / "sweeps").symlink_to(ROOT / "sweeps")
    for name in ("ablation_quick", "openmoji", "relations", "transformers"):
        shutil.copytree(run, folder / "runs" / name / "1")
        shutil.copytree(run, folder / "runs" / name / "2")
    _drawing(folder / "drawing.png", "black", 64)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "house.png", folder / "docs")
    (folder / "prompts.csv").write_text("sketch,prompt\ndrawing.png,a red circle\n")
    for name in ("photos", "samples", "training", "sketches", "drawings", "masks"):
        (folder / name).mkdir()
    for number, colour in enumerate(COLOURS):
        _image(folder / f"samples/{number}.png", colour, number)
        _image(folder / f"photos/{number}.png", colour, number + 10)
        _image(folder / f"training/{number}.png", colour, number + 20)
        for drawings in ("sketches", "drawings"):
            _drawing(folder / drawings / f"{number}.png", "black", 64 + number)
        Image.fromarray(np.full((64, 64), 1, np.uint8)).save(folder / f"masks/{number}.png")
    rows = [{"file_name": f"{n}.png", "text": f"a {c} disc", "phrases": [f"a {c} disc"]} for n, c in enumerate(COLOURS)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _drawing(path: Path, ink: str, seed: int) -> None:
    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((8 + seed % 5, 12, 50, 54), outline=ink, width=2)
    image.save(path)


def _image(path: Path, colour: str, seed: int) -> None:
    """A disc on a noisy ground, so that no two images are alike."""
    noise = np.random.default_rng(seed).integers(150, 250, (64, 64, 3), np.uint8)
    image = Image.fromarray(noise)
    ImageDraw.Draw(image).ellipse((12, 12, 50, 50), fill=colour)
    image.save(path)
