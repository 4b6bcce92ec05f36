"""text=clip with CLIP's real merges: the tokens that UNets were trained on, where they are in the caption, what is cut."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_sd import WIDTH, real_merges, save_sd

from ragaf_exp.config.compose import compose_config
from ragaf_exp.models.text.clip import ClipText

START, END = 49406, 49407
SCENE = "A red circle left of a striped blue star, on a beige background."


@pytest.fixture(scope="module")
def clip(shared_data, tmp_path_factory) -> ClipText:
    """A text encoder with random weights and the real tokenizer, by way of the run folder's file."""
    file = next((b / "weights" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz" for b in (shared_data, shared_data.parent)
                 if (b / "weights" / "clip_bpe").is_dir()), None)  # fmt: skip
    if file is None:
        pytest.skip(f"no weights/clip_bpe next to {shared_data}")
    place: Path = tmp_path_factory.mktemp("clip")
    sd = save_sd(place / "sd", merges=real_merges(file))
    cfg = compose_config(["text=clip", f"text.source={sd}"]).text
    (place / "tokenizer.json").write_text(ClipText.tokenizer_for(cfg, list).to_str())
    return ClipText(ClipText.load(place / "tokenizer.json"), str(sd))


def test_captions_become_the_published_tokens(clip):
    ids, mask = clip.tokenize(["a photo of a cat", "A  Photo of a CAT", ""])
    assert clip.tokenizer.get_vocab_size() == 49_408 and ids.shape == mask.shape == (3, 77)
    assert ids[0, :7].tolist() == [START, 320, 1125, 539, 320, 2368, END] and torch.equal(ids[0], ids[1])
    assert mask.sum(1).tolist() == [7, 7, 2] and (ids[:, 7:] == END).all(), "Stable Diffusion 1.x pads with the end token"


@settings(deadline=None, max_examples=40)
@given(st.text("abcdefghij kqzXYZ019.,!?-'\"()", max_size=60))
def test_captions_become_what_another_implementation_makes_of_them(clip, caption):
    open_clip = pytest.importorskip("open_clip")
    theirs = open_clip.tokenizer._tokenizer.encode(caption)
    ids, mask = clip.tokenize([caption])
    assert ids[0][mask[0]].tolist() == [START, *theirs, END]


def test_every_token_knows_its_characters(clip):
    spans, ids = clip.token_spans(SCENE), clip.tokenize([SCENE])[0][0].tolist()
    assert spans[0] == spans[-1] == (0, 0) and ids[len(spans) - 1] == END
    words = [SCENE[start:end] for start, end in spans[1:-1]]
    assert words == "A red circle left of a striped blue star , on a beige background .".split()
    tokens = [clip.tokenizer.id_to_token(i).removesuffix("</w>") for i in ids[1 : len(words) + 1]]
    assert tokens == [word.lower() for word in words]
    rare = clip.token_spans("a zygomorphic star")
    assert len(rare) > 5 and rare[-2] == (14, 18) and rare[1][1] <= rare[2][0], "a rare word in parts, in order"


def test_a_dropped_caption_is_the_empty_one_and_only_the_unet_attends_to_padding(clip):
    both = clip([SCENE, "a cat"], torch.tensor([True, False]))
    empty = clip([""])
    assert both.tokens.shape == (2, 77, WIDTH) and torch.equal(both.tokens[1], empty.tokens[0])
    assert both.mask[1].sum() == 2 and both.attended.all() and not both.tokens.requires_grad
    other = clip(["a cat"])
    assert not torch.equal(other.tokens[0], empty.tokens[0])
    assert torch.equal(other.tokens[0], clip([SCENE, "a cat"]).tokens[1]), "whatever is encoded with it"


def test_a_long_caption_is_cut_with_a_warning(clip, caplog):
    caplog.set_level(logging.WARNING)
    long = " ".join(["red"] * 80) + " end"
    ids, mask = clip.tokenize([long])
    assert ids.shape == (1, 77) and mask.all() and ids[0, -1] == END and len(clip.token_spans(long)) == 77
    assert "text.max_tokens=77" in caplog.text and "red end" not in caplog.messages[0][:60]
