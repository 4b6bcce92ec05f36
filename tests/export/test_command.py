"""python -m ragaf_exp.export: whole or not at all, its table and card, and every way to call it wrongly."""

from __future__ import annotations

import re

import numpy as np
import pytest
from exporting import write
from huggingface_hub import ModelCard
from images import PROMPT, difference, of_run
from safetensors.torch import load_file

from ragaf_exp.core.errors import UserError
from ragaf_exp.export import run_folder
from ragaf_exp.export.__main__ import KINDS, main
from ragaf_exp.export.kinds import CheckFailed
from ragaf_exp.export.write import KINDS as WRITERS
from ragaf_exp.runs.checkpoints import load_newest

pytestmark = pytest.mark.process  # every export loads its run and its own files


def test_the_command_prints_a_table_and_ends_with_the_upload(cli, finished, tmp_path):
    status, out, err = cli(main, f"run={finished}", f"out={tmp_path / 'out'}", "kinds=[run,diffusers]", "half=true")
    assert status == 0, err
    assert re.search(r"^diffusers +model_index.json", out, re.M) and re.search(r"^run +run +\d\.\d MB", out, re.M)
    assert out.splitlines()[-1] == f"upload with: hf upload USER/tiny {tmp_path / 'out'}"
    assert re.search(r"^checked model_index.json: an image .* differs from the run's by at most [0-4] of 255$", out, re.M)
    assert load_file(next((tmp_path / "out").rglob("ema.safetensors")))["backbone.unet.conv_in.weight"].dtype.itemsize == 2


def test_the_command_knows_every_kind():
    assert set(KINDS) == set(WRITERS)


def test_what_a_run_cannot_be_is_listed_with_the_reason(cli, finished, tmp_path):
    status, out, _ = cli(main, f"run={finished}", f"out={tmp_path / 'out'}")
    assert status == 0
    reasons = dict(re.findall(r"^(\w+) +- +- +not written: (.*)$", out, re.M))
    assert reasons.keys() == {"controlnet", "adapter", "lora", "checkpoint", "onnx"}
    assert "hint=controlnet" in reasons["controlnet"] and "trained from scratch" in reasons["checkpoint"]


WRONG = {
    "run=: missing": ["out=x"],
    "out=: missing": ["run=x"],
    "half=yes: must be one of false, true": ["run=x", "out=x", "half=yes"],
    "weights=none: must be one of own, all": ["run=x", "out=x", "weights=none"],
    "kinds: gguf: unknown; known are diffusers": ["run=x", "out=x", "kinds=[run,gguf]"],
    "no such run folder": ["run=nowhere", "out=x"],
    "unknown argument": ["run=x", "out=x", "hub=me"],
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_are_one_line(message, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(main, *WRONG[message], says=(message,))
    assert not list(tmp_path.iterdir())


def test_a_stage_must_be_one_of_the_runs(refused, finished, tmp_path):
    arguments = (f"run={finished}", f"out={tmp_path / 'out'}", "stage=third")
    refused(main, *arguments, says=("stage=third: must be one of coarse, refine",))
    assert not list(tmp_path.iterdir())


def test_a_kind_that_was_named_must_be_possible(refused, finished, tmp_path):
    arguments = (f"run={finished}", f"out={tmp_path / 'out'}", "kinds=[run,lora]")
    refused(main, *arguments, says=("kinds: lora: it trained no LoRA",))
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_an_existing_folder_is_refused(refused, finished, tmp_path):
    (tmp_path / "out").mkdir()
    refused(main, f"run={finished}", f"out={tmp_path / 'out'}", says=("exists; choose another folder",))
    assert not list((tmp_path / "out").iterdir())


def test_a_failed_check_or_an_interruption_leaves_nothing(finished, tmp_path, monkeypatch):
    real = run_folder.write_tensors

    def damaged(path, tensors, *more):
        first = next(iter(tensors))
        return real(path, {**tensors, first: tensors[next(reversed(tensors))]}, *more)

    monkeypatch.setattr(run_folder, "write_tensors", damaged)
    with pytest.raises(UserError, match="failed its own check and was removed") as caught:
        write(finished, tmp_path / "out", "run")
    assert isinstance(caught.value.__cause__, CheckFailed) and not list(tmp_path.iterdir())

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_folder, "write_tensors", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(finished, tmp_path / "out", "run")
    assert not list(tmp_path.iterdir())


def test_an_unfinished_or_damaged_run_is_refused(refused, run_copy, tmp_path):
    for file in run_copy.glob("checkpoints/refine/*/ema.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    refused(main, f"run={run_copy}", f"out={tmp_path / 'out'}", says=("checkpoints/refine: no intact checkpoint",))
    (run_copy / "tokenizer.json").unlink()
    refused(main, f"run={run_copy}", f"out={tmp_path / 'out'}", says=("tokenizer.json: missing",))
    assert not (tmp_path / "out").exists()


def test_the_slim_run_samples_the_same_image_and_cannot_be_resumed(exported, finished, strokes):
    slim = exported / "run"
    assert difference(of_run(finished, strokes, 1), of_run(slim, strokes, 1)) == 0
    assert load_newest(slim / "checkpoints", "coarse") is None
    assert load_newest(slim / "checkpoints", "coarse", parts=()) is None
    assert load_newest(slim / "checkpoints", "coarse", parts=("ema",)) is not None


def test_export_is_deterministic(exported, finished, tmp_path):
    again = write(finished, tmp_path / "again")
    files = {p.relative_to(exported): p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    assert files == {p.relative_to(again): p.read_bytes() for p in again.rglob("*") if p.is_file()}


# --- the card


def test_the_card_has_valid_front_matter_and_the_runs_figures(exported, finished, figures):
    card = ModelCard.load(exported / "README.md")
    assert card.data.library_name == "diffusers" and card.data.pipeline_tag == "image-to-image"
    assert card.data.license == "mit" and "sketch-to-image" in card.data.tags
    shown = dict(re.findall(r"^\| ([\w\\/]+) \| ([-\d.e+]+) \|", card.content, re.M))
    assert float(shown[r"binding\_accuracy"]) == pytest.approx(figures(finished)["binding_accuracy"], abs=5e-3)
    assert "| n |" in card.content and "white strokes on a black ground" in card.content
    assert (exported / "sample_grid.png").is_file() and "](sample_grid.png)" in card.content


def test_the_cards_python_code_runs(exported, tmp_path, monkeypatch):
    import shutil

    folder = shutil.copytree(exported, tmp_path / "export")
    monkeypatch.chdir(folder)
    blocks = re.findall(r"```python\n(.*?)\n```", (folder / "README.md").read_text(), re.S)
    assert len(blocks) == 2
    for block in blocks:
        (folder / "image.png").unlink(missing_ok=True)
        exec(compile(block, "README.md", "exec"), {})
        assert (folder / "image.png").is_file()


def test_the_cards_code_for_networks_runs(lora_export, monkeypatch):
    monkeypatch.chdir(lora_export)
    blocks = re.findall(r"```python\n(.*?)\n```", (lora_export / "README.md").read_text(), re.S)
    networks = [block for block in blocks if "ControlNetModel" in block or "lora_state_dict" in block]
    assert len(networks) == 2
    for block in networks:
        exec(compile(block, "README.md", "exec"), {})


def test_the_cards_command_runs(exported, tmp_path, process):
    import shlex
    import shutil

    from PIL import Image

    folder = shutil.copytree(exported, tmp_path / "export")
    Image.fromarray(np.pad(np.zeros((40, 40), np.uint8), 12, constant_values=255)).save(folder / "sketch.png")
    (command,) = re.findall(r"```bash\npython -m (.*?)\n```", (folder / "README.md").read_text(), re.S)
    module, *arguments = shlex.split(command)
    done = process(module, *arguments, cwd=folder)
    assert done.returncode == 0 and (folder / "samples" / "stage2.png").is_file(), done.stderr
    assert PROMPT in (folder / "samples" / "prompt.txt").read_text()
