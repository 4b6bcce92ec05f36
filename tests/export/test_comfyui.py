"""The node package against ComfyUI's interface, restated here: node classes, input types, and a graph run by its rules."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from images import difference, of_run

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
WIDGETS = {"STRING": str, "INT": int, "FLOAT": float}


@pytest.fixture(scope="module")
def nodes():
    spec = importlib.util.spec_from_file_location("ragaf_nodes", FOLDER / "ragaf_nodes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def declared(cls: Any) -> dict[str, tuple]:
    kinds = cls.INPUT_TYPES()
    return {**kinds["required"], **kinds.get("optional", {})}


def test_every_node_declares_what_comfyui_reads(nodes):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for cls in nodes.NODE_CLASS_MAPPINGS.values():
        assert isinstance(cls.CATEGORY, str) and callable(getattr(cls, cls.FUNCTION))
        assert len(cls.RETURN_TYPES) == len(cls.RETURN_NAMES)
        for name, kind in declared(cls).items():
            assert isinstance(kind, tuple) and isinstance(kind[0], str | list), name
            if isinstance(kind[0], str) and kind[0] in WIDGETS and len(kind) > 1:
                assert isinstance(kind[1].get("default", WIDGETS[kind[0]]()), WIDGETS[kind[0]]), name


def execute(graph: dict[str, Any], classes: dict[str, Any], given: dict[str, tuple]) -> dict[str, tuple]:
    """Run a graph in ComfyUI's API format: links are [node, output], and every input must be declared."""
    results = dict(given)

    def value(item: Any) -> Any:
        return results_of(item[0])[item[1]] if isinstance(item, list) else item

    def results_of(number: str) -> tuple:
        if number not in results:
            node = graph[number]
            cls = classes[node["class_type"]]
            kinds = declared(cls)
            assert set(cls.INPUT_TYPES()["required"]) <= node["inputs"].keys() <= kinds.keys()
            for name, item in node["inputs"].items():
                if isinstance(item, list) and graph[item[0]]["class_type"] in classes:
                    assert classes[graph[item[0]]["class_type"]].RETURN_TYPES[item[1]] == kinds[name][0], name
            arguments = {name: value(item) for name, item in node["inputs"].items()}
            results[number] = getattr(cls(), cls.FUNCTION)(**arguments)
            assert len(results[number]) == len(cls.RETURN_TYPES)
        return results[number]

    for number, node in graph.items():
        if node["class_type"] in classes:
            results_of(number)
    return results


def picture(strokes: np.ndarray) -> torch.Tensor:
    """ComfyUI's image of a drawing, black on white."""
    return torch.from_numpy(1 - strokes)[None, ..., None].repeat(1, 1, 1, 3)


@pytest.mark.long
def test_the_example_graph_runs(nodes, exported, strokes):
    graph = json.loads((FOLDER / "example.json").read_text())
    graph["1"]["inputs"]["folder"] = str(exported)
    results = execute(graph, nodes.NODE_CLASS_MAPPINGS, {"2": (picture(strokes), None)})
    image, first = results["5"]
    for tensor in (image, first, results["3"][1]):
        assert tensor.shape == (1, 32, 32, 3) and tensor.dtype == torch.float32 and 0 <= tensor.min() <= tensor.max() <= 1
    assert results["3"][2].splitlines()[1].startswith("1: ")
    assert results["3"][0]["edits"] == {}, "an upstream result, which ComfyUI caches, is not changed"


def test_a_run_gives_its_own_image(nodes, finished, strokes):
    (pipeline,) = nodes.RagafLoad().load(str(finished))
    regions, _, _ = nodes.RagafRegions().find(pipeline, picture(strokes), "auto")
    cfg = pipeline.last.parts.cfg
    image, _ = nodes.RagafSample().sample(
        pipeline, regions, "a red circle", 4, cfg.sampler.steps, cfg.sampler.guidance, cfg.stage.refine.strength
    )
    assert difference(of_run(finished, strokes, 4), np.rint(image[0].numpy() * 255).astype(np.uint8)) == 0


def test_a_region_that_is_not_there_is_refused(nodes):
    with pytest.raises(ValueError, match="region 3: this sketch has regions 0 to 0"):
        nodes.RagafRegionPrompt().add({"points": [(0.5, 0.5)], "edits": {}}, 3, "red")
