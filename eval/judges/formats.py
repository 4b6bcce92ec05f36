"""The benchmarks whose formats are written and whose results are read; a further one is a module and an entry here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from eval.judges import coco_mig, compbench, geneval, layoutsam
from eval.judges.scenes import Figure, Scene, Written


@dataclass(frozen=True)
class Benchmark:
    """A benchmark and its judge."""

    title: str
    judge: str  # the networks that judge
    data: str  # the benchmark's own prompts
    licence: str  # of its code and data, for those who run it
    results: str  # the file that its judge writes
    write: Callable[[Sequence[Scene], Path], Written]
    read: Callable[[Path, int], list[Figure]]

    def differs(self) -> str:
        """The sentence that stands next to every figure of it."""
        return (f"The judge is {self.judge}; the data are scenes of this run's test split, not {self.data}. "
                f"These figures do not compare with published ones of {self.title}.")  # fmt: skip


BENCHMARKS = {
    "geneval": Benchmark(
        "GenEval", "Mask2Former trained on COCO with CLIP for colours", "its 553 prompts", "MIT", "results.jsonl",
        geneval.write, geneval.read,
    ),
    "compbench": Benchmark(
        "T2I-CompBench", "BLIP-VQA, or another of its models", "its 1,000 prompts of a category", "MIT",
        "annotation_blip/vqa_result.json", compbench.write, compbench.read,
    ),
    "coco_mig": Benchmark(
        "COCO-MIG", "GroundingDINO and SAM with ranges of hues", "its 800 layouts", "non-commercial",
        "metric_NAME.json, or the output of eval_mig.py", coco_mig.write, coco_mig.read,
    ),
    "layoutsam": Benchmark(
        "LayoutSAM-Eval", "the vision-language model MiniCPM-V 2.6", "its 5,000 layouts", "not stated",
        "minicpm-vqa.json", layoutsam.write, layoutsam.read,
    ),
}  # fmt: skip
