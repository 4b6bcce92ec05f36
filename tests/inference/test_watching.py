"""Attention while sampling: the layers' weights are recorded, and sampling does not change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ragaf_exp.data.loader import collate
from ragaf_exp.inference.attention_recorder import AttentionFrame, AttentionRecorder, record_attention
from ragaf_exp.inference.load import load_run
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.viz.attention_steps import AttentionStep, indexed, region_means, save_attention, select_words, subsample


@pytest.fixture(scope="module")
def run(finished):
    folder, cfg = RunFolder.read(finished)
    parts, pipeline = load_run(folder, cfg)
    examples = [parts.examples("test")[i] for i in range(3)]
    with record_attention(pipeline.models["refine"], parts.diffusion) as watch:
        drawn = pipeline(collate(examples)).to_images()
    return parts, pipeline, examples, watch.frames(), drawn


def test_a_frame_for_every_timestep_and_the_last_is_the_image(run):
    parts, pipeline, _, frames, drawn = run
    assert len(frames) == round(parts.cfg.sampler.steps * parts.cfg.stage.refine.strength)
    assert [f.t for f in frames] == sorted((f.t for f in frames), reverse=True)
    last = parts.codec.decode(frames[-1].x0).clamp(-1, 1).add(1).mul(127.5).round().byte().permute(0, 2, 3, 1).numpy()
    assert np.abs(last.astype(int) - drawn.final.astype(int)).max() <= 1


def test_shares_of_a_pixel_sum_to_one_and_padding_gets_none(run):
    _, pipeline, examples, frames, _ = run
    text = pipeline.models["refine"].text
    for frame in frames:
        assert torch.allclose(frame.attention.sum(1), torch.ones(()), atol=1e-4)
        for row, example in enumerate(examples):
            assert not frame.attention[row, len(text.token_spans(example.item.caption)) :].any()


def test_watching_changes_nothing_and_ends(run):
    parts, pipeline, examples, frames, drawn = run
    again = pipeline(collate(examples)).to_images()
    assert (again.final == drawn.final).all()
    assert all(p.watch is None for p in pipeline.models["refine"].backbone.unet.attn_processors.values())
    assert (
        not pipeline.models["refine"].backbone._forward_hooks and not pipeline.models["refine"].backbone._forward_pre_hooks
    )


def test_guidance_and_broken_chunks_leave_one_frame_a_timestep():
    def frame(t: int, rows: int, tokens: int) -> AttentionFrame:
        return AttentionFrame(t, torch.full((rows, tokens, 2, 2), float(t)), torch.zeros(rows, 1, 2, 2))

    watch = AttentionRecorder(None)
    watch.recorded = [frame(t, 2, tokens) for tokens in (3, 4) for t in (9, 9, 5, 5)] + [frame(9, 1, 3)]
    frames = watch.frames()
    assert [f.t for f in frames] == [9, 5] and all(f.attention.shape == (4, 4, 2, 2) for f in frames)


def test_region_means():
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    labels = np.array([[0, 0], [2, -1]])
    assert region_means(maps, labels, 3).tolist() == [[0.5, 4.5], [0, 0], [2, 6]]
    assert region_means(maps[:0], labels, 3).shape == (3, 0)


def test_words_that_name_something_are_shown_in_their_order():
    words = ["a", "red", "star", "on", "a", "mint", "background"]
    maps = np.zeros((7, 2, 2), np.float32)
    maps[[1, 5]] = 1.0
    steps = [AttentionStep(9, np.zeros((2, 2, 3), np.uint8), maps, np.zeros((1, 7)))]
    assert select_words(words, steps) == [1, 2, 5] and select_words(["the"], [steps[0]]) == [0]


def test_first_and_last_are_kept():
    steps = [AttentionStep(t, None, None, None) for t in range(20, 0, -1)]
    assert [m.t for m in subsample(steps, 3)] == [20, 10, 1]
    assert len(subsample(steps, 50)) == 20


def test_files_are_a_grid_and_an_animation(run, tmp_path):
    parts, pipeline, examples, frames, _ = run
    save_attention(tmp_path, examples[0], frames, 0, pipeline.models["refine"].text, parts.codec)
    with Image.open(tmp_path / "attention.gif") as moving:
        assert moving.n_frames == len(frames) and moving.info["duration"] == 500
    assert Image.open(tmp_path / "attention_steps.png").height > len(frames) * 128
    save_attention(tmp_path / "none", examples[0], [], 0, pipeline.models["refine"].text, parts.codec)
    assert not (tmp_path / "none").exists()


def test_a_small_object_keeps_its_colour_in_the_animation():
    """Among a heat map's thousands of colours, and in all frames by one palette."""
    slope = np.linspace(0, 255, 300).round().astype(np.uint8)
    frames = []
    for colour in ((220, 20, 30), (20, 160, 60)):
        frame = np.stack(np.broadcast_arrays(slope[None, :], slope[:, None], np.uint8(120)), -1).copy()
        frame[40:58, 40:58] = colour
        frames.append(frame)
    pictures = indexed(frames)
    assert pictures[0].getpalette() == pictures[1].getpalette()
    for picture, frame in zip(pictures, frames, strict=True):
        off = np.abs(np.asarray(picture.convert("RGB")).astype(int) - frame)
        assert off[42:56, 42:56].max() <= 16 and off.mean() < 6
