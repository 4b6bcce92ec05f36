"""A run folder from a stranger: whatever it holds, evaluating, sampling and reporting it leaves the user's files as they
are, shows none of them, and ends with status 0, or with 2 and one line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load, save

import eval.__main__ as scoring
from ragaf_exp import sample
from ragaf_exp.core.files import checksum
from ragaf_exp.report import __main__ as reporting
from ragaf_exp.runs import origin
from ragaf_exp.runs.checkpoints import newest_whole

pytestmark = pytest.mark.process

SECRET = "hunter2-of-the-user"
COMMANDS = ("eval", "sample", "report")
SCENE = "samples/test/0000"
UNSAMPLED = re.compile("samples|metrics|items|environment|report|json|line|figure")  # what sampling doesn't read


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's home with private files."""
    home = tmp_path / "home"
    (home / "docs" / "letters").mkdir(parents=True)
    (home / "docs" / "letters" / "1.txt").write_text(SECRET)
    (home / "docs" / "0123456789abcdef").mkdir()
    (home / "docs" / "0123456789abcdef" / "thesis.txt").write_text(SECRET)
    (home / ".bashrc").write_text(f"export TOKEN={SECRET}\n")
    (home / "secret.json").write_text(json.dumps({"schema": 1, "device": SECRET, "state": SECRET}))
    Image.fromarray(np.full((8, 8, 3), (250, 1, 201), np.uint8)).save(home / "photo.png")
    return home


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every name below a folder, and what the files hold."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def sparse(path: Path) -> bool:
    """Whether a large file has no blocks on disk: it is zeros alone, which take seconds to read."""
    return path.stat().st_size > 2**30 and path.stat().st_blocks == 0


def call(command: str, run: Path, cli: Callable, drawing: Path, out: Path) -> tuple[int, str, str]:
    """One of the three commands on a run."""
    if command == "sample":
        return cli(sample.main, f"run={run}", f"sketch={drawing}", "prompt=a red circle", f"out={out}", "attention=false")
    return cli(scoring.main if command == "eval" else reporting.main, f"run={run}")


@pytest.fixture
def safe(
    cli: Callable, finished: Path, user: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Callable:  # fmt: skip
    """safe(command, run) -> (status, log and stderr); the user's files stay, and their secrets are in nothing written."""
    monkeypatch.setenv("SECRET", SECRET)
    before = tree(user)

    def run_command(command: str, run: Path) -> tuple[int, str]:
        caplog.clear()
        status, out, err = call(command, run, cli, finished / SCENE / "sketch.png", tmp_path / "out")
        assert tree(user) == before
        assert SECRET not in out + err + caplog.text
        written = [p for folder in (run, tmp_path / "out") for p in folder.rglob("*") if p.is_file() and not p.is_symlink()]
        assert not [p for p in written if not sparse(p) and SECRET.encode() in p.read_bytes()]
        assert status in (0, 2), err
        if status == 2:
            errors = [line for line in err.splitlines() if line.startswith("error: ")]
            assert len(errors) == 1 and err.splitlines()[-1] == errors[0] and "Traceback" not in err, err
        return status, caplog.text + err

    return run_command


def link(name: str, target: str) -> Callable:
    """The run's file or folder becomes a symbolic link to one of the user's."""

    def attack(run: Path, user: Path) -> None:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.symlink_to(user / target)

    return attack


def pipe(name: str) -> Callable:
    def attack(run: Path, user: Path) -> None:
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return attack


def text(name: str, content: str) -> Callable:
    return lambda run, user: (run / name).write_text(content) and None


def config(before: str, after: str) -> Callable:
    """A line of config.yaml, changed."""

    def attack(run: Path, user: Path) -> None:
        content = (run / "config.yaml").read_text()
        assert before in content
        (run / "config.yaml").write_text(content.replace(before, after))

    return attack


def device(run: Path, user: Path) -> None:
    (run / "config.yaml").unlink()
    (run / "config.yaml").symlink_to("/dev/zero")


def large(name: str) -> Callable:
    """A file of 3 GB that takes no room."""

    def attack(run: Path, user: Path) -> None:
        with open(run / name, "wb") as file:
            file.truncate(3 * 2**30)

    return attack


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
LINKS = [
    ("samples", "docs"), ("samples/drawn", "docs"), ("samples/test", "docs"), (SCENE, "docs"),
    (f"{SCENE}/truth.png", "photo.png"), (f"{SCENE}/stage2.png", ".bashrc"), (f"{SCENE}/attention.gif", "photo.png"),
    ("samples/fusion.json", "secret.json"), ("samples/test/index.json", "secret.json"),
    ("samples/refine-000006.png", "photo.png"),
    ("environment.json", "secret.json"), ("status.json", "secret.json"), ("config.yaml", ".bashrc"),
    ("metrics.json", "secret.json"), ("metrics.jsonl", ".bashrc"), ("items.jsonl", ".bashrc"),
    ("tokenizer.json", ".bashrc"),
    ("report.html", ".bashrc"), ("checkpoints", "docs"), ("checkpoints/refine", "docs"), (".signature", ".bashrc"),
]  # fmt: skip
ATTACKS = {
    **{f"link {name}": link(name, target) for name, target in LINKS},
    **{f"pipe {name}": pipe(name) for name in ("status.json", "config.yaml", "metrics.json", "tokenizer.json",
                                               f"{SCENE}/truth.png", "samples/test/index.json")},  # fmt: skip
    **{f"large {name}": large(name) for name in ("status.json", "config.yaml", "tokenizer.json", "metrics.jsonl")},
    "device": device,
    "escape \\x24": config("name: tiny", 'name: "\\x24{oc.env:SECRET}"'),
    "escape \\u0024": config("name: tiny", 'name: "\\u0024\\x7boc.env:SECRET}"'),
    "folded line": config("name: tiny", 'name: "$\\\n  {oc.env:SECRET}"'),
    "key": config("name: tiny", '"\\x24{oc.env:SECRET}": 1\nname: tiny'),
    "aliases": text("config.yaml", BOMB),
    "keys": text("config.yaml", "".join(f"k{i}: 1\n" for i in range(2_000_000))),
    "deep yaml": text("config.yaml", "a: " + "[" * 300_000),
    "huge number": config("seed: 0", "seed: " + "9" * 5000),
    "deep json": text("environment.json", "[" * 200_000),
    "huge json number": text("environment.json", '{"a": ' + "9" * 5000 + "}"),
    "deep metrics": text("metrics.json", '{"schema": 1, "metrics": ' + '{"a":' * 90 + "1" + "}" * 91),
    "deep line": text("metrics.jsonl", '{"stage": "coarse", "step": 1, "loss": ' + "[" * 200_000 + "\n"),
    "huge figure": text("metrics.json", '{"schema": 1, "metrics": {"ssim": {"value": 1' + "0" * 400 + "}}}"),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_the_users_files_stay_as_they_are(name, run_copy, user, safe):
    ATTACKS[name](run_copy, user)
    for command in COMMANDS:
        if command != "sample" or not UNSAMPLED.search(name):
            safe(command, run_copy)


@pytest.mark.parametrize("name", ["samples/drawn", "samples/test", SCENE])
def test_a_linked_folder_of_samples_is_refused(name, run_copy, user, safe):
    link(name, "docs")(run_copy, user)
    status, err = safe("eval", run_copy)
    assert status == 2 and "symbolic link" in err and str(run_copy / name) in err


def test_a_linked_picture_is_replaced_by_the_runs_own(run_copy, user, safe):
    link(f"{SCENE}/truth.png", ".bashrc")(run_copy, user)
    assert safe("eval", run_copy)[0] == 0
    assert not (run_copy / SCENE / "truth.png").is_symlink() and Image.open(run_copy / SCENE / "truth.png").size == (32, 32)


@pytest.mark.parametrize("name", ["environment.json", f"{SCENE}/truth.png", "status.json", "metrics.json"])
def test_a_linked_file_reaches_no_report(name, run_copy, user, safe):
    link(name, "secret.json" if name.endswith("json") else "photo.png")(run_copy, user)
    status, err = safe("report", run_copy)
    assert status == 2 and "symbolic link" in err


def test_only_named_files_are_removed(run_copy, user, safe):
    """A user's own files among the images of earlier weights stay."""
    (run_copy / "samples/drawn/notes").mkdir()
    (run_copy / "samples/drawn/notes/a.txt").write_text("mine")
    old = run_copy / "samples/drawn" / ("a" * 16)
    old.mkdir()
    for name in ("0123456789abcdef.safetensors", "attention-2.done", "b.txt"):
        (old / name).write_text("x")
    assert safe("eval", run_copy)[0] == 0
    assert (run_copy / "samples/drawn/notes/a.txt").read_text() == "mine"
    assert [path.name for path in old.iterdir()] == ["b.txt"]


# --- paths and hub names


def of_stranger(run: Path) -> Path:
    """Make the run another user's: sign it with another key."""
    (run / origin.SIGNATURE).write_text("0" * 64)
    return run


def write_config(run: Path, content: dict) -> None:
    """Write another config, with the checksum in status.json that a stranger would not forget."""
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "config": checksum(run / "config.yaml")}))


@pytest.mark.parametrize("key", ["eval.inception", "eval.clip_config"])
def test_paths_of_a_strangers_config_are_not_followed(key, run_copy, user, safe):
    content = yaml.safe_load((run_copy / "config.yaml").read_text())
    group, _, name = key.partition(".")
    content[group][name] = str(user / "secret.json")
    write_config(run_copy, content)
    status, err = safe("eval", run_copy)
    assert status == 2 and f"add {key}={user / 'secret.json'}" in err
    assert safe("report", run_copy)[0] == 0 and safe("sample", run_copy)[0] == 0, "they need no such path"


def test_a_path_that_the_command_line_repeats_is_followed(run_copy, user, cli):
    content = yaml.safe_load((run_copy / "config.yaml").read_text())
    content["eval"]["inception"] = str(user / "secret.json")  # no metric asks for it
    write_config(run_copy, content)
    status, _, err = cli(scoring.main, f"run={run_copy}", f"eval.inception={user / 'secret.json'}")
    assert status == 0, err


def test_a_users_own_run_is_recognised(finished, run_copy):
    assert origin.made_here(finished) and origin.made_here(run_copy), "wherever it is moved"
    (run_copy / "config.yaml").write_text((run_copy / "config.yaml").read_text() + "# by hand\n")
    assert not origin.made_here(run_copy)


# --- images of test items


def forge(run: Path) -> None:
    """Other images, in files that are whole."""
    for path in (run / "samples/drawn").glob("*/*.safetensors"):
        arrays = load(path.read_bytes())
        path.write_bytes(save(arrays | {"stage2": 255 - arrays["stage2"]}))


def flip(run: Path) -> None:
    """One bit of an image."""
    for path in (run / "samples/drawn").glob("*/*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1000] ^= 1
        path.write_bytes(bytes(content))


@pytest.mark.parametrize("change", [forge, flip])
def test_changed_images_are_sampled_again(change, run_copy, safe, figures, finished):
    change(run_copy)
    status, err = safe("eval", run_copy)
    assert status == 0 and "sampled again" in err
    assert figures(run_copy) == pytest.approx(figures(finished), rel=1e-5)


def test_images_of_another_user_are_sampled_again(run_copy, safe, figures, finished, monkeypatch, tmp_path):
    """Their seals are whole, and made with another key."""
    monkeypatch.setattr(origin, "_key", lambda folder: b"another user's")
    status, err = safe("eval", run_copy)
    assert status == 0 and "sampled again" in err and figures(run_copy) == pytest.approx(figures(finished), rel=1e-5)
    assert "sampled again" not in safe("eval", run_copy)[1], "now they are this user's"


# --- damaged files with the right checksums


def rewritten(run: Path, change: Callable[[bytes], bytes]) -> Path:
    """The newest checkpoint of stage 2, its EMA weights changed and the checksum with them."""
    place = newest_whole(run / "checkpoints", "refine")
    content = change((place / "ema.safetensors").read_bytes())
    (place / "ema.safetensors").write_bytes(content)
    state = json.loads((place / "state.json").read_text())
    state["sha256"]["ema.safetensors"] = hashlib.sha256(content).hexdigest()
    (place / "state.json").write_text(json.dumps(state))
    return place


def header(length: int) -> Callable[[bytes], bytes]:
    return lambda content: length.to_bytes(8, "little") + content[8:]


HEADERS = {
    "too long": header(2**62), "too short": header(3), "empty": lambda content: b"",
    "no json": lambda content: content[:8] + b"#" + content[9:],
    "cut": lambda content: content[:-64], "padded": lambda content: content + bytes(64),
    "no dtype": lambda content: content.replace(b'"F32"', b'"Q32"', 1),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_checksummed_damaged_checkpoint_is_passed_over(name, run_copy, safe):
    place = rewritten(run_copy, HEADERS[name])
    for command in COMMANDS:
        status, err = safe(command, run_copy)
        assert status == 0 and (command == "report" or f"{place}: damaged" in err)


def test_weights_that_are_nan_make_no_image(run_copy, safe, tmp_path):
    rewritten(run_copy, lambda content: save({k: np.full_like(v, np.nan) for k, v in load(content).items()}))
    for command in ("sample", "eval"):
        status, err = safe(command, run_copy)
        assert status == 2 and "NaN" in err and not (tmp_path / "out").exists()


def test_weights_that_overflow_make_no_image(run_copy, safe, tmp_path):
    rewritten(run_copy, lambda content: save({k: np.full_like(v, 3e38) for k, v in load(content).items()}))
    status, err = safe("sample", run_copy)
    assert status == 2 and "NaN" in err and not (tmp_path / "out").exists()


def split(pattern: str) -> dict:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


PADDING = {"strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0,
           "pad_token": "[PAD]"}  # fmt: skip
TOKENIZERS = {
    "padding": ({"padding": PADDING}, 0), "regex": ({"pre_tokenizer": split("(?:(?:a*)*)*(")}, 2),
    "backtracking": ({"pre_tokenizer": split(r"((?:[a-z ]|[a-z ]{2})+)\1{9}")}, 2),
    "truncation": ({"truncation": {"max_length": 1, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}}, 0),
    "model": ({"model": {"type": "WordLevel", "vocab": {"a": 10**9}, "unk_token": "a"}}, 2), "version": ({"version": 9}, 2),
    "no start": ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, "added_tokens": []}, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_odd_tokenizer_is_one_line(name, run_copy, safe):
    change, wanted = TOKENIZERS[name]
    content = json.loads((run_copy / "tokenizer.json").read_text()) | change
    (run_copy / "tokenizer.json").write_text(json.dumps(content))
    for command in ("sample", "eval"):
        status, err = safe(command, run_copy)
        assert status == wanted and (not wanted or "tokenizer.json" in err)
