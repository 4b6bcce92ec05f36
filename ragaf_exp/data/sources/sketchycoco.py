"""SketchyCOCO (Gao et al. 2020): COCO photos with scene sketches composed of object sketches, and single objects.

root/Scene/GT/{trainInTrain,valInTrain,val}/ID.*   root/Scene/Sketch/[paper_version/]{...}/ID.*
root/Object/GT/{train,val}/COCO-ID-OF-CLASS/*      root/Object/Sketch/{train,val}/...
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ragaf_exp.config import limits
from ragaf_exp.core.errors import UserError
from ragaf_exp.data.audit.findings import WARNING, Finding
from ragaf_exp.data.listing import by_stem, folders_in
from ragaf_exp.data.sources.captions import counted
from ragaf_exp.data.sources.coco_captions import captions_by_id, coco_id
from ragaf_exp.data.sources.mentions import concept
from ragaf_exp.data.sources.records import Record, RecordSource, root_folder
from ragaf_exp.data.sources.stuff_labels import STUFF

LAYOUT = "the folder that holds Scene/ and Object/, each with GT/ and Sketch/"
PARTS = {"scene": {"trainInTrain": "train", "valInTrain": "val", "val": "test"}, "object": {"train": "", "val": "test"}}
LEAKED = "valInTrain"  # images of COCO's train2017
CLASSES = {
    2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 10: "traffic light", 11: "fire hydrant", 17: "cat", 18: "dog",
    19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 24: "zebra", 25: "giraffe",
}  # fmt: skip


class SketchyCoco(RecordSource):
    """Scenes or objects with sketches. Captions of scenes are COCO's, where its annotations are at hand.

    Args:
        root: The folder of Scene/ and Object/.
        size: Side of the square images, in pixels; of the buckets' square with `buckets`.
        kind: "scene" or "object".
        coco: COCO's folder, of which annotations/captions_*2017.json are read; "" leaves scenes without captions.
        fit: "crop" takes the central square, "pad" the whole image.
        drop: Flags whose items are left out: leaked, scenes of valInTrain, which COCO-trained models know.
        on_error: "raise" or "skip" for images without a sketch, and sketches without an image.
        check: Decode every file at the start.
        val_share: Share of the objects for val, in [0, 1); scenes have a val split.
        test_share: Share for test, in [0, 1), where the folder val is missing.
        buckets: Fit each image to the size nearest its aspect instead of a square (see data.buckets).
        upscale: With buckets: enlarge images that are smaller than their bucket.
        crop_input: The networks get what is cut off each image as an input.

    Raises:
        UserError: A value is invalid, or the layout is another.
    """

    def __init__(
        self,
        root: str = "",
        size: limits.Size = 256,
        kind: str = "scene",
        coco: str = "",
        fit: str = "crop",
        drop: limits.Flags = (),
        on_error: str = "raise",
        check: bool = False,
        val_share: limits.ShareBelowOne = 0.1,
        test_share: limits.ShareBelowOne = 0.1,
        buckets: bool = False,
        upscale: bool = False,
        crop_input: bool = False,
    ) -> None:
        folder = root_folder(root, LAYOUT)
        if kind not in PARTS:
            raise UserError(f"data.kind={kind}: must be scene or object")
        if set(drop) - {"leaked"}:
            raise UserError(f"data.drop={list(drop)}: the only flag is leaked")
        captions = captions_by_id(coco) if coco and kind == "scene" else {}
        records = list(_scenes(folder, captions) if kind == "scene" else _objects(folder))
        if not records:
            raise UserError(f"data.root={root}: no images in {kind.title()}/GT; data.root must be {LAYOUT}")
        super().__init__(folder, records, size, fit, "auto", drop, on_error, check, val_share, test_share,
                         buckets, upscale, crop_input)  # fmt: skip

    def remarks(self) -> list[Finding]:
        """Report scenes whose images a COCO-trained model has seen, for an audit."""
        leaked = [record.key for record in self.usable if "leaked" in record.flags]
        text = ("valInTrain holds images of COCO's train2017: models trained on COCO have seen them. "
                "data.drop=[leaked] leaves them out.")  # fmt: skip
        return [Finding(WARNING, "leaked images", len(leaked), text, leaked[:8], leaked[:8])] if leaked else []


def _scenes(root: Path, captions: dict[int, list[str]]) -> Iterator[Record]:
    above = root / "Scene"
    sketches = next((path for path in (above / "Sketch" / "paper_version", above / "Sketch") if path.is_dir()), above)
    for part, split in PARTS["scene"].items():
        for stem, image, drawing, problem in _paired(root, above / "GT" / part, sketches / part):
            texts = tuple(captions.get(coco_id(stem), ()))
            flags = ("leaked",) if part == LEAKED else ()
            yield Record(f"{part}/{stem}", image, drawing, texts, split=split, flags=flags, problem=problem)


def _objects(root: Path) -> Iterator[Record]:
    above = root / "Object"
    for part, split in PARTS["object"].items():
        images, sketches = above / "GT" / part, above / "Sketch" / part
        for name in folders_in(images) if images.is_dir() else ():
            text = f"a photo of {counted(_class(name, images))}"
            for stem, image, drawing, problem in _paired(root, images / name, sketches / name):
                yield Record(f"{part}/{name}/{stem}", image, drawing, (text,), split=split, problem=problem)


def _class(name: str, above: Path) -> str:
    number = int(name) if name.isdigit() else -1
    if number not in CLASSES and number not in STUFF:
        raise UserError(f"{above / name}: is not named by a COCO class; known are {', '.join(map(str, CLASSES))}")
    return CLASSES.get(number) or concept(STUFF[number])


def _paired(root: Path, images: Path, sketches: Path) -> Iterator[tuple[str, str, str, str]]:
    """Yield stem, paths of image and sketch relative to the root, and the problem, "" for a whole pair."""
    pictures, drawings = by_stem(images), by_stem(sketches)
    for stem in sorted({*pictures, *drawings}):
        image = (images / pictures[stem]).relative_to(root).as_posix() if stem in pictures else ""
        drawing = (sketches / drawings[stem]).relative_to(root).as_posix() if stem in drawings else ""
        yield stem, image, drawing, "" if image and drawing else "it has no sketch" if image else "it has no image"
