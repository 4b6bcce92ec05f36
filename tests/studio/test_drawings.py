"""Regions of drawings, edits of them, words and label maps, by the studio's routes."""

from __future__ import annotations

import base64
import io
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from ragaf_exp.data.uploads import png
from ragaf_exp.studio.strokes import rasterise


def labels_of(content: dict) -> np.ndarray:
    return np.frombuffer(base64.b64decode(content["labels"]), "<i2").reshape(content["height"], content["width"])


def encoded(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()


@pytest.fixture
def regions(client, drawing) -> dict:
    """The background, the square and the circle, by area."""
    content = client.post("/api/regions", content=drawing).json()
    assert len(content["regions"]) == 3, content
    return content


def test_the_run_is_described(client):
    about = client.get("/api/about").json()
    assert about["state"] == "ready" and about["error"] is None and about["progress"] == 1
    assert (about["width"], about["height"]) == (32, 32) and about["stages"] == [1, 2]
    assert about["task"]["jobs"] == ["sketch", "edit"] and about["task"]["edit"]["method"] == "repaint"
    assert about["run"]["name"].startswith("tiny/") and len(about["run"]["checksum"]) == 12
    assert {"red", "circle"} <= set(about["words"]) and "red" in about["colours"] and about["gallery"]
    assert about["limits"]["importance"] == [0, 2] and about["defaults"]["steps"] == 2


def test_regions_of_a_drawing(regions):
    labels = labels_of(regions)
    assert [region["index"] for region in regions["regions"]] == [0, 1, 2] and regions["background"] == 0
    for region in regions["regions"]:
        x, y = region["at"]
        assert labels[int(y * 32), int(x * 32)] == region["index"]
        assert region["area"] == (labels == region["index"]).sum()
    assert [region["parent"] for region in regions["regions"]] == [-1, 0, 0]
    assert [0, 1] in regions["edges"] and regions["warning"] is None and regions["leaks"] == []
    assert len(base64.b64decode(regions["sketch"])) == 32 * 32


def test_an_open_outline_leaks_at_its_opening(client):
    picture = np.full((256, 256, 3), 255, np.uint8)
    cv2.ellipse(picture, (128, 128), (80, 80), 0, 16, 344, (0, 0, 0), 8)  # open at the right
    content = client.post("/api/regions", content=png(picture)).json()
    assert len(content["regions"]) == 1
    (leak,) = content["leaks"]
    assert abs(leak["at"][0] - 208 / 256) < 0.08 and abs(leak["at"][1] - 0.5) < 0.05 and 0 < leak["width"] < 0.3


def test_pictures_are_recognised_by_content(client, drawing):
    picture = Image.open(io.BytesIO(drawing))
    counts = set()
    for kind in ("JPEG", "WEBP", "PNG"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        headers = {"content-type": "text/html"}
        counts.add(len(client.post("/api/regions", content=buffer.getvalue(), headers=headers).json()["regions"]))
    assert counts == {3}


def test_a_blank_page_has_one_region_and_a_photo_can_be_extracted(client):
    blank = client.post("/api/regions", content=png(np.full((64, 64, 3), 255, np.uint8))).json()
    assert len(blank["regions"]) == 1 and "drawn" in blank["warning"]
    photo = np.full((64, 64, 3), 40, np.uint8)
    photo[16:48, 16:48] = 220
    extracted = client.post("/api/regions?extract=canny", content=png(photo)).json()
    assert len(extracted["regions"]) == 2
    refused = client.post("/api/regions?extract=../etc", content=png(photo))
    assert refused.status_code == 400 and "canny" in refused.json()["error"]


BMP = io.BytesIO()
Image.new("RGB", (4, 4)).save(BMP, "BMP")


@pytest.mark.parametrize("content", [
    b"", b"GIF89a", np.random.default_rng(0).bytes(1000), b"<svg xmlns='http://www.w3.org/2000/svg'/>", BMP.getvalue(),
    b"\x89PNG\r\n\x1a\n" + b"\0" * 100, b"\xff\xd8\xff" + b"\0" * 100, b"RIFF" + b"\0" * 100,
])  # fmt: skip
def test_other_content_is_refused_in_one_line(client, content):
    answer = client.post("/api/regions", content=content)
    assert answer.status_code == 400 and "\n" not in answer.json()["error"]


def test_a_decompression_bomb_is_refused_before_it_is_decoded(client):
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")  # 400 megapixels in some kB
    answer = client.post("/api/regions", content=buffer.getvalue())
    assert answer.status_code == 400 and "too many pixels" in answer.json()["error"]
    Image.new("1", (5000, 16)).save(buffer := io.BytesIO(), "PNG")
    assert "5000x16" in client.post("/api/regions", content=buffer.getvalue()).json()["error"]


def test_edits_keep_the_identity_of_regions(client, regions):
    def edit(**request):
        answer = client.post("/api/edit", json={"labels": regions["labels"], **request})
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert edit(op="rebuild")["came"] == [0, 1, 2] and edit(op="rebuild")["labels"] == regions["labels"]
    assert edit(op="merge", regions=[1, 2])["came"] == [0, 1]
    assert edit(op="delete", regions=[1])["came"] == [0, 2]
    before = labels_of(regions)
    for request in ({"op": "split", "line": [[0, 0.5], [1, 0.5]]}, {"op": "halve", "along": "top-bottom"},
                    {"op": "halve", "along": "left-right"}):  # fmt: skip
        parted = edit(region=1, **request)
        assert sorted(parted["came"]) == [-1, 0, 1, 2]
        now = labels_of(parted)
        assert set(np.unique(before[now == parted["came"].index(-1)])) == {1}
    mask = np.zeros((32, 32), np.uint8)
    mask[:8, :8] = 1
    painted = edit(op="paint", mask=encoded(mask), into=None)
    assert -1 in painted["came"] and set(labels_of(painted)[:8, :8].ravel()) == {painted["came"].index(-1)}
    joined = edit(op="paint", mask=encoded(mask), into=2)
    assert set(labels_of(joined)[:8, :8].ravel()) == {joined["came"].index(2)}


@pytest.mark.parametrize("request_", [
    {"op": "merge", "regions": [1]}, {"op": "merge", "regions": [1, 9]}, {"op": "merge"}, {"op": "merge", "regions": 3},
    {"op": "split", "region": 0, "line": [[0, 0]]}, {"op": "split", "region": 1, "line": [["a", 1], [1, 1]]},
    {"op": "split", "region": 1, "line": [[1e308, 0], [1, 1e999]]}, {"op": "split", "region": 1.5, "line": []},
    {"op": "paint", "mask": "", "into": 0}, {"op": "paint", "mask": "ünicode", "into": 0},
    {"op": "delete", "regions": [0, 1, 2]},
    {"op": "halve", "region": 1, "along": "diagonal"}, {"op": "nothing"}, {"op": ["merge"]}, {},
    {"op": "rebuild", "labels": "AAAA"}, {"op": "rebuild", "labels": None},
])  # fmt: skip
def test_edits_that_are_not_possible_are_refused_in_one_line(client, regions, request_):
    body = json.dumps({"labels": regions["labels"], **request_})  # with Infinity, which httpx refuses to send
    answer = client.post("/api/edit", content=body)
    assert answer.status_code == 400 and "\n" not in answer.json()["error"], answer.text


def test_labels_with_many_values_are_refused(client):
    many = np.arange(32 * 32, dtype="<i2").reshape(32, 32)
    answer = client.post("/api/edit", json={"labels": encoded(many), "op": "rebuild"})
    assert answer.status_code == 400 and "64" in answer.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff\xfe", b'{"a": 1' + b"0" * 5000 + b"}"])
def test_requests_that_are_no_objects_are_refused(client, body):
    for path in ("/api/edit", "/api/words", "/api/jobs", "/api/recipe"):
        answer = client.post(path, content=body)
        assert answer.status_code == 400 and "\n" not in answer.json()["error"]


def test_a_label_map_is_read_at_any_size(client):
    labels = np.zeros((64, 64), np.uint8)
    labels[16:48, 16:48] = 7
    labels[:4] = 255
    content = client.post("/api/labels", content=png(labels)).json()
    read = labels_of(content)
    assert content["came"] == [0, 7] and read.shape == (32, 32)
    assert (read[:2] == -1).all() and (read[10:20, 10:20] == 1).all()


def test_unknown_words_are_reported(client):
    texts = ["make it crimson red", "", "zebra"]
    rows = client.post("/api/words", json={"texts": texts}).json()["texts"]
    assert [row["text"] for row in rows] == texts
    assert "red" in rows[0]["read"] and "crimson" in rows[0]["left_out"]
    assert rows[1] == {"text": "", "read": "", "left_out": []}
    assert rows[2]["read"] == "" and rows[2]["left_out"] == ["zebra"]
    assert client.post("/api/words", json={"texts": ["a"] * 66}).status_code == 400


def test_examples_have_drawings_whose_prompts_name_their_regions(client):
    examples = client.get("/api/examples").json()["examples"]
    assert len(examples) == 8 and len({example["id"] for example in examples}) == 8
    assert examples[0]["image"].startswith("data:image/png;base64,")  # sampled while the studio warmed up
    for example in examples:
        picture = png(rasterise(example["strokes"])) if example["photo"] is None else _bytes(example["photo"])
        method = f"?extract={example['extract']}" if example["extract"] else ""
        content = client.post(f"/api/regions{method}", content=picture).json()
        labels = labels_of(content)
        named = [labels[int(y * 32), int(x * 32)] for x, y in (region["at"] for region in example["regions"])]
        if example["id"] not in ("gaps", "many"):  # one leaks on purpose; nine shapes are too small for 32 pixels
            assert len(set(named)) == len(named) and -1 not in named, (example["id"], named)
    assert content["warning"] is None


def _bytes(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2])
