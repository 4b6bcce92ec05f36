"""The exported pipeline: the run's own image in every bit, the arguments of diffusers, and errors of one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from exporting import write
from images import PROMPT, difference, of_run
from PIL import Image

from ragaf_exp.core.errors import UserError
from ragaf_exp.export.pipeline import RagafPipeline

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def pipeline(exported) -> RagafPipeline:
    loaded = RagafPipeline.from_pretrained(exported)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def ours(finished, strokes) -> np.ndarray:
    return of_run(finished, strokes, seed=3)


def test_image_equals_the_runs_own(pipeline, ours, strokes):
    result = pipeline(PROMPT, strokes, seed=3)
    assert difference(ours, result.images[0]) == 0 and result.seed == 3 and len(result.coarse_images) == 1
    assert ours.std() > 5, "an image, not a constant"
    assert difference(ours, pipeline(PROMPT, strokes, seed=4).images[0]) > 0


def test_a_new_generator_gives_the_image_of_its_seed(pipeline, ours, strokes):
    generator = torch.Generator().manual_seed(3)
    assert difference(ours, pipeline(PROMPT, strokes, generator=generator).images[0]) == 0
    second = pipeline(PROMPT, strokes, generator=generator)
    assert difference(ours, second.images[0]) > 0
    assert difference(np.asarray(second.images[0]), pipeline(PROMPT, strokes, seed=second.seed).images[0]) == 0


def test_loading_leaves_the_callers_noise_alone(exported):
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    RagafPipeline.from_pretrained(exported)
    assert torch.equal(torch.randn(3), expected)


def test_output_types_and_batches(pipeline, strokes):
    arguments = {"prompt": [PROMPT, "a blue star"], "sketch": strokes, "seed": 1}
    pil, array, tensor = (pipeline(**arguments, output_type=kind).images for kind in ("pil", "np", "pt"))
    assert array.shape == (2, 32, 32, 3) and tensor.shape == (2, 3, 32, 32) and array.max() <= 1
    np.testing.assert_array_equal(np.rint(array * 255).astype(np.uint8), np.stack([np.asarray(i) for i in pil]))
    assert pipeline(**arguments, return_dict=False)[0][0].size == (32, 32)


def test_sketches_of_either_polarity_and_form(pipeline, strokes):
    """White on black and black on white are the same drawing; so are a picture and strokes."""
    light = Image.fromarray((strokes * 255).astype(np.uint8))
    dark = Image.fromarray(255 - np.asarray(light))
    images = [pipeline(PROMPT, sketch, seed=0).images[0] for sketch in (light, dark, torch.from_numpy(strokes)[None])]
    assert all(difference(np.asarray(images[0]), image) == 0 for image in images[1:])


def test_a_callback_sees_the_steps_of_both_stages_and_can_stop(pipeline, strokes):
    steps = []

    def watch(pipe, step, timestep, values):
        steps.append((values["stage"], step, timestep, tuple(values["pred_original_sample"].shape)))

    pipeline(PROMPT, strokes, num_inference_steps=3, seed=0, callback_on_step_end=watch)
    assert [s[:2] for s in steps] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert steps[0][2] > steps[1][2] and len({s[3] for s in steps}) == 1
    count = len(steps)

    def stop(pipe, step, timestep, values):
        watch(pipe, step, timestep, values)
        pipe._interrupt = True

    assert pipeline(PROMPT, strokes, seed=0, callback_on_step_end=stop).images[0].size == (32, 32)
    assert len(steps) == count + 1


def test_edits_act_on_their_region_as_in_sampling(pipeline, strokes, tmp_path):
    edits = {"regions": [{"at": [0.5, 0.5], "prompt": "green", "importance": 2.0}]}
    plain, edited = (np.asarray(pipeline(PROMPT, strokes, e, seed=0).images[0]) for e in (None, edits))
    assert difference(plain, edited) > 0
    (tmp_path / "edits.json").write_text(json.dumps(edits))
    assert difference(edited, pipeline(PROMPT, strokes, tmp_path / "edits.json", seed=0).images[0]) == 0
    redone = np.asarray(pipeline(PROMPT, strokes, edits, seed=0, image=Image.fromarray(plain)).images[0])
    assert difference(redone[0], plain[0]) == 0 and difference(redone[15], plain[15]) > 0, "outside stays, inside does not"


WRONG = {
    "sketch: missing": {"sketch": None},
    "output_type=jpeg: must be one of pil, np, pt": {"output_type": "jpeg"},
    "strength=2": {"strength": 2},
    "size=33x32: sides must be multiples": {"width": 33},
    "2 drawings for 1 prompts": {"sketch": [np.zeros((32, 32), np.float32)] * 2},
    r"floats must be strokes \(H,W\) in \[0,1\]": {"sketch": np.full((32, 32), 2.0)},
    "mask: this run's task takes sketch, prompt": {"mask_image": np.zeros((32, 32), np.uint8)},
    "edits: index=99: the drawing has regions 0 to 1": {"edits": {"regions": [{"index": 99, "prompt": "x"}]}},
    "unknown key 'point'": {"edits": {"regions": [{"index": 0, "point": 1}]}},
    "sampler.steps=0": {"num_inference_steps": 0},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_argument_is_one_line(message, pipeline, strokes):
    with pytest.raises(UserError, match=message) as caught:
        pipeline(PROMPT, **{"sketch": strokes, **WRONG[message]})
    assert "\n" not in str(caught.value)


def test_half_differs_by_at_most_4_grey_levels(finished, strokes, ours, tmp_path):
    half = write(finished, tmp_path / "half", "diffusers", half=True)
    sizes = [sum(f.stat().st_size for f in folder.rglob("*.safetensors")) for folder in (half,)]
    assert sizes[0] < 0.6 * sum(f.stat().st_size for f in finished.rglob("checkpoints/*/*/ema.safetensors"))
    assert difference(ours, RagafPipeline.from_pretrained(half)(PROMPT, strokes, seed=3).images[0]) <= 4


def test_saved_again_it_is_the_same(pipeline, ours, strokes, tmp_path):
    pipeline.save_pretrained(tmp_path / "again")
    assert difference(ours, RagafPipeline.from_pretrained(tmp_path / "again")(PROMPT, strokes, seed=3).images[0]) == 0


@pytest.mark.process  # trains a run
def test_named_weights_must_be_given_and_are_checked(lora_run, sd, strokes, tmp_path):
    named = write(lora_run, tmp_path / "named", "diffusers")
    with pytest.raises(UserError, match="names weights that it does not hold.*sources=.*'sd'.*weights=all"):
        RagafPipeline.from_pretrained(named)
    loaded = RagafPipeline.from_pretrained(named, sources={"sd": str(sd)})
    assert difference(of_run(lora_run, strokes, 0), loaded(PROMPT, strokes, seed=0).images[0]) == 0
    from tiny_sd import save_sd

    other = save_sd(tmp_path / "other", seed=9)
    with pytest.raises(UserError, match="not those that this run was trained with"):
        RagafPipeline.from_pretrained(named, sources={"sd": str(other)})


@pytest.mark.process  # trains a run
def test_a_folder_with_all_weights_stands_alone(lora_export, lora_run, strokes):
    loaded = RagafPipeline.from_pretrained(lora_export)
    assert difference(of_run(lora_run, strokes, 0), loaded(PROMPT, strokes, seed=0).images[0]) == 0
    assert str(lora_run.parent) not in (lora_export / "coarse" / "config.json").read_text(), "no path of this machine"
