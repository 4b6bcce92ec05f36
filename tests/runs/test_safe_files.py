"""Files of a run folder: no symbolic link is followed, nothing but a regular file is opened, and sizes are bounded."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ragaf_exp.config.compose import CONF, load_config
from ragaf_exp.config.constructors import Unreadable, read_constructor
from ragaf_exp.config.ranges import plain
from ragaf_exp.config.schema import BUILT, NESTED
from ragaf_exp.core import files, safe_files
from ragaf_exp.core.errors import UserError
from ragaf_exp.runs import origin
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.runs.followed import KEYS, PATHS, check_followed
from ragaf_exp.runs.lock import Lock

NO_PATHS = {"revision", "variant", "subfolder", "tokenizer_subfolder", "device", "text_column", "on_error", "fit",
            "polarity", "groups", "closing", "strokes", "kind", "points", "schedule", "prediction", "scheduler", "project",
            "mode", "masks", "mask_width", "art", "holdout", "split", "captions", "config", "image", "text", "drawing",
            "hole", "caption", "categories", "drop", "photos", "sketches", "positions", "weighting", "shift_by",
            "density", "edges", "tasks", "sources", "lpips_net", "spacing"}  # fmt: skip


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a file, and a symbolic link to it in a run folder."""
    outside, run = tmp_path / "outside", tmp_path / "run"
    outside.mkdir()
    run.mkdir()
    (outside / "a.txt").write_text("mine")
    (run / "inner").symlink_to(outside)
    (run / "b.txt").symlink_to(outside / "a.txt")
    return outside, run


@pytest.mark.parametrize("name", ["inner/a.txt", "b.txt"])
def test_nothing_is_read_through_a_link(linked, name):
    for read in (safe_files.read_bounded, safe_files.open_append, safe_files.is_regular, files.read_json):
        with pytest.raises(UserError, match="symbolic link"):
            read(linked[1] / name)


def test_nothing_is_written_through_a_link(linked):
    outside, run = linked
    with pytest.raises(UserError, match="symbolic link"):
        files.write_text(run / "inner" / "a.txt", "theirs", own=True)
    with pytest.raises(UserError, match="symbolic link"):
        safe_files.make_folder(run / "inner" / "new")
    with pytest.raises(UserError, match="symbolic link"):
        files.write_folder(run / "inner" / "new", lambda folder: None)
    files.write_text(run / "b.txt", "theirs", own=True)
    assert not (run / "b.txt").is_symlink() and (run / "b.txt").read_text() == "theirs"
    assert [(p.name, p.read_text()) for p in outside.iterdir()] == [("a.txt", "mine")]


def test_nothing_is_removed_through_a_link(linked):
    outside, run = linked
    for remove in (lambda: safe_files.remove_named(run / "inner", re.compile(".*")),
                   lambda: files.remove_folder(run / "inner" / "a.txt")):  # fmt: skip
        with pytest.raises(UserError, match="symbolic link"):
            remove()
    files.remove_folder(run / "inner")
    assert not (run / "inner").exists() and (outside / "a.txt").read_text() == "mine"


def test_links_above_a_run_folder_are_the_users_own(linked, tmp_path):
    outside, run = linked
    assert RunFolder(run / "inner").path == outside
    files.write_text(run / "inner" / "out.json", "{}")
    assert (outside / "out.json").read_text() == "{}"


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("pipe", "socket"):
            for read in (safe_files.read_bounded, safe_files.open_append, safe_files.is_regular):
                with pytest.raises(UserError, match="not a regular file"):
                    read(tmp_path / name)
    with pytest.raises(UserError, match="not a regular file"):
        safe_files.read_bounded(Path("/dev/zero"))


def test_sizes_are_bounded(tmp_path):
    (tmp_path / "a").write_bytes(bytes(100))
    assert safe_files.read_bounded(tmp_path / "a", 100) == bytes(100)
    with pytest.raises(UserError, match="larger than 99 bytes"):
        safe_files.read_bounded(tmp_path / "a", 99)


def test_a_write_that_fails_leaves_the_old_content(tmp_path, monkeypatch):
    safe_files.write_atomic(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space") as error:
        safe_files.write_atomic(tmp_path / "a", b"new")
    assert error.value.filename == str(tmp_path / "a")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a", b"old")]


@pytest.mark.parametrize("content", ["[" * 200_000, "[" * 70 + "]" * 70, "9" * 5000, '{"a": ' + "1" * 21 + "}", "", "{"])
def test_odd_json_is_a_value_error(content):
    with pytest.raises(ValueError):  # noqa: PT011 - of any text
        files.parse_json(content)


# --- one owner


@pytest.mark.parametrize("name", ["000²0001.json", "00000001", "0000000a.json", "x" * 200, "000000001.json", "\u0661" * 8])
def test_owners_of_odd_names_are_passed_over(name, tmp_path):
    (tmp_path / ".owners").mkdir()
    (tmp_path / ".owners" / name).write_text("x")
    lock = Lock(tmp_path)
    lock.acquire()
    assert lock.number == 1 and lock.is_held()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_an_owner_that_is_no_file_is_one_line(make, tmp_path):
    (tmp_path / ".owners").mkdir()
    make(tmp_path / ".owners" / "00000001.json")
    with pytest.raises(UserError, match=r"00000001\.json") as error:
        Lock(tmp_path).acquire()
    assert "\n" not in str(error.value)


def test_a_highest_owner_is_one_line(tmp_path):
    (tmp_path / ".owners").mkdir()
    (tmp_path / ".owners" / "99999999.json").write_text("{}")
    with pytest.raises(UserError, match="no number is left"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("field", ["pid", "started", "boot", "host", "job"])
def test_an_owner_of_wrong_types_is_none(field):
    from ragaf_exp.runs.owner import Owner

    content = Owner.me().as_dict()
    assert Owner.read(content) == Owner.me()
    assert Owner.read(content | {field: [1]}) is None
    assert Owner.read(content | {"job": "--help"}) is None


# --- paths of a stranger's config


def test_every_path_of_a_config_needs_to_be_repeated():
    """Whoever adds a text to a constructor decides: a path or hub name belongs to followed.PATHS, anything else here."""
    for group in BUILT:
        for option in (CONF / NESTED.get(group, group)).glob("*.yaml"):
            content = OmegaConf.load(option)
            target = content.get(group, content)._target_  # below the group's key where the file also chooses other groups
            try:
                texts = [name for name, kind, _ in read_constructor(target) if "str" in str(plain(kind))]
            except Unreadable:
                texts = []
            known = {*PATHS.get(group, ()), *NO_PATHS, *(() if group == "sketch" else ("weights",))}
            assert set(texts) <= known, f"{option}: {set(texts) - known}"


@pytest.mark.parametrize("key", KEYS)
def test_a_path_is_followed_where_it_is_repeated_or_ones_own(key, run_copy):
    folder, cfg = RunFolder(run_copy), load_config(run_copy / "config.yaml")
    OmegaConf.update(cfg, key, "/home/me/private", force_add=True)
    group = key.partition(".")[0]
    check_followed(folder, cfg, [group])
    (run_copy / origin.SIGNATURE).unlink()
    with pytest.raises(UserError, match=f"add {key}=/home/me/private"):
        check_followed(folder, cfg, [group])
    folder.followed = {key}
    check_followed(folder, cfg, [group])


def test_the_key_is_the_users_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("RAGAF_CACHE", str(tmp_path / "cache"))
    first = origin.seal("a", b"content")
    (path,) = (tmp_path / "cache").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600 and len(path.read_bytes()) == origin.LENGTH
    origin._key.cache_clear()
    assert origin.seal("a", b"content") == first != origin.seal("b", b"content")
    monkeypatch.setenv("RAGAF_CACHE", str(tmp_path / "other"))
    assert origin.seal("a", b"content") != first


def test_a_cache_that_cannot_be_written_gives_a_key_for_this_process(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RAGAF_CACHE", str(tmp_path / "file"))
    assert origin.seal("a", b"content") == origin.seal("a", b"content")


def test_a_tokenizer_with_code_of_its_author_is_refused(tmp_path, monkeypatch):
    """open_clip asks transformers for it, which would put the question to the terminal."""
    import tiny_clip

    from eval.clip.network import Clip

    names = tmp_path / "names"
    names.mkdir()
    settings = '{"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", null]}}'
    (names / "tokenizer_config.json").write_text(settings)
    (names / "config.json").write_text('{"model_type": "own"}')
    (names / "own.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nclass Own: pass\n")
    monkeypatch.setattr("builtins.input", lambda question: "y")
    text = tiny_clip.CONFIG["text_cfg"] | {"hf_tokenizer_name": str(names)}
    model = tiny_clip.save(tmp_path, tiny_clip.CONFIG | {"text_cfg": text})
    with pytest.raises(UserError, match="can't build it"):
        Clip(**model, device="cpu")
    assert not (tmp_path / "made").exists()


def test_no_auto_class_is_called_without_saying_so():
    """transformers' Auto classes run the code of a folder or hub id unless trust_remote_code=False."""
    root = Path(CONF).parent
    for path in [*root.glob("ragaf_exp/**/*.py"), *root.glob("eval/**/*.py")]:
        for call in re.findall(r"\bAuto\w+\.from_\w+\((.*?)\)\.|\bAuto\w+\.from_\w+\(([^)]*)\)", path.read_text(), re.S):
            assert "trust_remote_code=False" in "".join(call), path
