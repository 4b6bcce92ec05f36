"""Words that a tokenizer does not know, and captions of any length."""

from __future__ import annotations

import json
import logging
import time

import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers

from eval.sidecars import read_captions
from ragaf_exp.data.lengths import LONGEST
from ragaf_exp.data.sources.emoji import _read_entries
from ragaf_exp.data.sources.metadata import read_rows
from ragaf_exp.models.text.tiny import TinyText
from ragaf_exp.models.text.vocabulary import MOST, NAMED, fitting, unknown_words
from ragaf_exp.sample import batch_requests, single_request
from ragaf_exp.sample import main as sample

CAPTIONS = ["a red circle left of a blue star on a beige background"] * 3


@pytest.fixture
def encoder() -> TinyText:
    torch.manual_seed(0)
    return TinyText(TinyText.fit(CAPTIONS), width=16, layers=1, heads=2, max_tokens=16)


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("caption", "known", "unknown"),
    [
        ("赤い円 a red circle", "a red circle", ["赤い円"]),
        ("a réd circle, 写真 写真", "a circle", ["réd", ",", "写真"]),
        ("красный", "", ["красный"]),
        ("a red circle", "a red circle", []),
        ("", "", []),
    ],
)
def test_unknown_words_are_named_and_left_out(caption, known, unknown, encoder, caplog):
    with caplog.at_level(logging.WARNING), torch.no_grad():
        encoded, other = encoder([caption]), encoder([known])
    torch.testing.assert_close(encoded.tokens, other.tokens)
    assert encoder.unknown_words(caption) == unknown
    spans = encoder.token_spans(caption)
    assert len(spans) == encoded.mask.sum() and spans[0] == (0, 0)
    assert "".join(caption[a:b] for a, b in spans) == known.replace(" ", "")
    assert len(warnings(caplog)) == bool(unknown)
    for line in warnings(caplog):
        assert all(word in line for word in unknown) and "left out" in line
        assert ("nothing remains" in line) == (known == "")


def test_a_warning_comes_once_and_never_as_a_flood(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            encoder.tokenize(["写真 a", "写真 b"])
        assert len(warnings(caplog)) == 1
        encoder.tokenize([f"a {chr(0x4E00 + i)}{chr(0x4E01 + i)}" for i in range(3 * NAMED)])
    assert len(warnings(caplog)) <= NAMED + 1 and "not listed" in warnings(caplog)[-1]


def test_a_warning_shows_no_control_characters(encoder, caplog):
    with caplog.at_level(logging.WARNING):
        encoder.tokenize(["a \u200f\u00e9\u2028x", "b " + "é" * 500])
    assert all(line.isprintable() and len(line) < 200 for line in warnings(caplog)) and warnings(caplog)


def test_a_unigram_vocabulary_has_unknown_words_too():
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("a", -1.0), ("red", -2.0)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    caption = "a 写真 red"
    assert unknown_words(tokenizer, tokenizer.encode(caption), caption) == {1: "写真"}


def test_an_image_lists_the_unknown_words_of_its_prompt(finished, cli, tmp_path):
    picture = Image.new("L", (64, 64), 255)
    ImageDraw.Draw(picture).ellipse((10, 10, 50, 50), outline=0, width=3)
    picture.save(tmp_path / "ring.png")
    words = [f"run={finished}", f"sketch={tmp_path}/ring.png", f"out={tmp_path}/out", "attention=false"]
    status, _, _ = cli(sample, *words, "prompt=赤い円 a red circle")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert status == 0 and result["unknown_words"] == ["赤い円"] and result["prompt"] == "赤い円 a red circle"


# --- length


def test_a_word_of_a_megabyte_is_fitted_and_read_in_a_moment(encoder):
    bomb = "ab" * 500_000
    began = time.monotonic()
    tokenizer = TinyText.fit([*CAPTIONS, bomb])
    assert "circle" in tokenizer.get_vocab()
    encoder.tokenize([bomb])
    encoder.token_spans(bomb)
    assert time.monotonic() - began < 5


def test_fitting_reads_so_much_and_no_more():
    long = list(fitting(["x" * 10 * LONGEST] * (3 * MOST // LONGEST)))
    assert MOST <= sum(text.count("x") for text in long) <= MOST + 2 * LONGEST
    assert max(len(word) for text in long for word in text.split()) == 100
    assert list(fitting(CAPTIONS)) == CAPTIONS


def test_captions_are_cut_at_10000_characters_with_one_warning(caplog, tmp_path):
    rows = [{"file_name": f"{i}.png", "text": "x" * length} for i, length in enumerate((5, LONGEST, LONGEST + 1, 10**6))]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.WARNING):
        assert [len(text) for row in read_rows(tmp_path) for text in row.texts] == [5, LONGEST, LONGEST, LONGEST]
    (line,) = warnings(caplog)
    assert "2 of 4 captions" in line and "number 3" in line and "metadata.jsonl" in line


def test_captions_of_an_evaluation_are_cut_too(caplog, tmp_path):
    rows = [{"file_name": "0.png", "text": "a red circle " + "x" * 10**6, "phrases": ["a red circle"]},
            {"file_name": "1.png", "text": "blue"}]  # fmt: skip
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with caplog.at_level(logging.WARNING):
        assert [len(caption.text) for caption in read_captions(tmp_path / "captions.jsonl").values()] == [LONGEST, 4]
    (line,) = warnings(caplog)
    assert "1 of 2 captions" in line and "captions.jsonl" in line


def test_names_of_emoji_are_cut_too(caplog, tmp_path):
    entry = {"hexcode": "1F34E", "annotation": "apple " * 10**5, "group": "food-drink", "subgroups": "food-fruit"}
    (tmp_path / "openmoji.json").write_text(json.dumps([entry]))
    with caplog.at_level(logging.WARNING):
        assert len(_read_entries(str(tmp_path))[0][1]) == LONGEST
    assert "openmoji.json" in warnings(caplog)[0]


def test_a_prompt_is_cut_too(caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        request = single_request({"sketch": "a.png", "prompt": "y" * 10**6, "out": "o"})
    assert len(request.prompt) == LONGEST and len(warnings(caplog)) == 1
    (tmp_path / "b.jsonl").write_text(json.dumps({"sketch": "a.png", "prompt": "y" * 10**5}))
    (request,) = batch_requests({"batch": tmp_path / "b.jsonl", "out": "o"})
    assert len(request.prompt) == LONGEST
