"""Folders of some 30 small pictures in official layouts of data sources. Each function writes one: root -> overrides."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 56, 42  # px, of the pictures
SHARES = ["data.val_share=0.2", "data.test_share=0.2"]
SIZES = [(HEIGHT, WIDTH)]  # of the pictures, in turn: see `sizes`
TX = "tx_000000000000"  # Sketchy's name of the aligned pictures


@contextmanager
def sizes(*others: tuple[int, int]) -> Iterator[None]:
    """Pictures that are written in here have these heights and widths in turn, and their annotations follow."""
    before = SIZES[:]
    SIZES[:] = others
    try:
        yield
    finally:
        SIZES[:] = before


def size_of(number: int) -> tuple[int, int]:
    """Height and width of a picture."""
    return SIZES[number % len(SIZES)]


def _sized(picture: Image.Image, number: int) -> Image.Image:
    height, width = size_of(number)
    return picture if picture.size == (width, height) else picture.resize((width, height))


def _scaled(points: np.ndarray, number: int) -> np.ndarray:
    """Points (N, 2) of a picture of WIDTH x HEIGHT in the picture of this number."""
    height, width = size_of(number)
    return points * (width / WIDTH, height / HEIGHT)


def box(number: int) -> tuple[int, int, int, int]:
    """Corners x0, y0, x1, y1 of the only object in a picture."""
    return 10 + number % 5, 8, 40 + number % 7, 32


def photo(number: int, with_object: bool = True) -> Image.Image:
    """A picture of coloured patches, with a red box in front of them."""
    patches = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    picture = Image.fromarray(np.kron(patches, np.ones((7, 7, 1), np.uint8)))
    if with_object:
        ImageDraw.Draw(picture).rectangle(box(number), fill=(200, 30, 30), outline=0, width=2)
    return _sized(picture, number)


def drawing(number: int) -> Image.Image:
    """The outline of a photo's box in black on white."""
    page = Image.new("L", (WIDTH, HEIGHT), 255)
    ImageDraw.Draw(page).rectangle(box(number), outline=0, width=2)
    return _sized(page, number)


def mask(number: int) -> Image.Image:
    """The area of a photo's box in white on black."""
    page = Image.new("L", (WIDTH, HEIGHT), 0)
    ImageDraw.Draw(page).rectangle(box(number), fill=255)
    return page


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write(path: Path, *lines: str) -> None:
    """Write a text file, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))


def coco(root: Path) -> list[str]:
    """Both parts of COCO 2017, with two captions and the polygon of a dog for each image."""
    categories = [{"id": 18, "name": "dog"}]
    for part, ids in (("train2017", range(1, 25)), ("val2017", range(101, 107))):
        for i in ids:
            save(photo(i), root / part / f"{i:012d}.jpg")
        images = [{"id": i, "file_name": f"{i:012d}.jpg", **dict(zip(("height", "width"), size_of(i), strict=True))}
                  for i in ids]  # fmt: skip
        _write_annotations(root, f"captions_{part}", images, [
            {"id": 10 * i + n, "image_id": i, "caption": text}
            for i in ids for n, text in enumerate(("a red dog on a quilt", "Two cushions\n"))])  # fmt: skip
        _write_annotations(root, f"instances_{part}", images, [_dog(i) for i in ids], categories=categories)
    return [f"data.root={root}", "data.val_share=0.2"]


def _dog(number: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (float(side) for side in _scaled(np.reshape(box(number), (2, 2)), number).ravel())
    return {"id": number, "image_id": number, "category_id": 18, "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
            "area": (x1 - x0) * (y1 - y0), "iscrowd": 0, "bbox": [x0, y0, x1 - x0, y1 - y0]}  # fmt: skip


def _write_annotations(root: Path, name: str, images: list, annotations: list, **more: list) -> None:
    write(root / "annotations" / f"{name}.json", json.dumps({"images": images, "annotations": annotations, **more}))


def sketchy(root: Path) -> list[str]:
    """The Sketchy database: three classes of five photos, each with two sketches."""
    for number in range(15):
        name, stem = ("scissors", "hot-air_balloon", "car_(sedan)")[number % 3], f"n0{number % 3}_{number}"
        save(photo(number).resize((48, 48)), root / "photo" / TX / name / f"{stem}.jpg")
        for drawer in (1, 2):
            save(drawing(number).resize((48, 48)), root / "sketch" / TX / name / f"{stem}-{drawer}.png")
    return [f"data.root={root}", *SHARES]


def sketchycoco(root: Path) -> list[str]:
    """Scenes of SketchyCOCO, with COCO's captions next to them."""
    captions = root.parent / "coco_of_sketchycoco"
    for part, year, ids in (("trainInTrain", "train2017", range(18)), ("valInTrain", "train2017", range(18, 24)),
                            ("val", "val2017", range(24, 30))):  # fmt: skip
        for i in ids:
            save(photo(i), root / "Scene" / "GT" / part / f"{i:012d}.png")
            save(drawing(i), root / "Scene" / "Sketch" / "paper_version" / part / f"{i:012d}.png")
        shown = range(24) if year == "train2017" else ids
        images = [{"id": i, "file_name": f"{i:012d}.jpg"} for i in shown]
        texts = [{"id": i, "image_id": i, "caption": f"a horse in field {i}"} for i in shown]
        _write_annotations(captions, f"captions_{year}", images, texts)
    return [f"data.root={root}", f"data.coco={captions}"]


def fscoco(root: Path) -> list[str]:
    """FS-COCO: photos, raster and vector sketches and descriptions by five people, and the official test split."""
    for number in range(30):
        place, stem = str(number % 5 + 1), f"{number:012d}"
        save(photo(number), root / "images" / place / f"{stem}.jpg")
        save(drawing(number), root / "raster_sketches" / place / f"{stem}.jpg")
        x0, y0, x1, y1 = box(number)
        strokes = np.array([(x0, y0, 0), (x1, y0, 0), (x1, y1, 1), (x1, y1, 0), (x0, y1, 0), (x0, y0, 1)], float)
        (root / "vector_sketches" / place).mkdir(parents=True, exist_ok=True)
        strokes[:, :2] = _scaled(strokes[:, :2], number)
        np.save(root / "vector_sketches" / place / f"{stem}.npy", strokes)
        write(root / "text" / place / f"{stem}.txt", f"a red box of person {place}")
    write(root / "val_normal.txt", *(f"{number:012d}" for number in range(0, 30, 6)))
    return [f"data.root={root}", "data.val_share=0.2"]


def quickdraw(root: Path) -> list[str]:
    """Quick, Draw!: two files of simplified drawings."""
    for name in ("cat", "The Eiffel Tower"):
        write(root / f"full_simplified_{name}.ndjson", *(json.dumps(_strokes(name, i)) for i in range(15)))
    return [f"data.root={root}", *SHARES]


def _strokes(name: str, number: int) -> dict[str, Any]:
    x0, y0, x1, y1 = (4 * side for side in box(number))
    strokes = [[[x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0]], [[x0, x1], [y0, y1]]]
    return {"key_id": str(1000 + number), "word": name, "recognized": True, "countrycode": "DE", "drawing": strokes}


def tuberlin(root: Path) -> list[str]:
    """TU-Berlin: PNG files of two categories."""
    for number in range(30):
        save(drawing(number).resize((111, 111)), root / ("cell phone", "owl")[number % 2] / f"{number}.png")
    return [f"data.root={root}", *SHARES]


def lineart(root: Path) -> list[str]:
    """Line drawings in two subfolders; each encloses two areas."""
    for number in range(30):
        page = drawing(number)
        ImageDraw.Draw(page).line((25, 8, 25, 32), fill=0, width=2)
        save(page, root / str(number % 2) / f"{number}.png")
    return [f"data.root={root}"]


def hf(root: Path) -> list[str]:
    """A saved Hugging Face data set with columns of photos, drawings and captions. Needs the library datasets."""
    import datasets

    numbers = range(30)
    content = {"photo": _packed(map(photo, numbers)), "lines": _packed(map(drawing, numbers)),
               "title": [f"a red box {i}" for i in numbers]}  # fmt: skip
    features = datasets.Features(photo=datasets.Image(), lines=datasets.Image(), title=datasets.Value("string"))
    datasets.Dataset.from_dict(content, features=features).save_to_disk(root)
    return [f"data.root={root}", "data.image=photo", "data.text=title", "data.drawing=lines", *SHARES]


def _packed(pictures: Iterable[Image.Image]) -> list[dict[str, Any]]:
    packed = []
    for picture in pictures:
        picture.save(buffer := io.BytesIO(), "PNG")
        packed.append({"bytes": buffer.getvalue(), "path": None})
    return packed


def edits(root: Path) -> list[str]:
    """A table of images with an object, its mask, the image without it, and a caption."""
    rows = []
    for number in range(30):
        for column, picture in (("input_image", photo(number)), ("mask", mask(number)),
                                ("target_image", photo(number, with_object=False))):  # fmt: skip
            save(picture, root / column / f"{number}.png")
        names = {column: f"{column}/{number}.png" for column in ("input_image", "mask", "target_image")}
        rows.append(json.dumps({**names, "text": f"a quilt {number}"}))
    write(root / "edits.jsonl", *rows)
    return [f"data.table={root / 'edits.jsonl'}", *SHARES]


LAYOUTS: dict[str, Callable[[Path], list[str]]] = {
    f"data={make.__name__}": make for make in (coco, edits, fscoco, hf, lineart, quickdraw, sketchy, sketchycoco, tuberlin)
}
