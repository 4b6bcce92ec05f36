"""Paths and quotation marks on the command line: what was typed is what is read."""

from __future__ import annotations

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from ragaf_exp.config import command_line as command_lines
from ragaf_exp.config.compose import as_hydra_override, compose_config, config_hash
from ragaf_exp.config.paths import KEYS, quoted, split, unquoted
from ragaf_exp.core.errors import UserError
from ragaf_exp.plan import __main__ as planning
from ragaf_exp.run import command_line
from ragaf_exp.sweep.definition import combinations, hydra_value, unquoted_value

NAMES = (
    "写真", "größe", "photos (1)", "a,b", "a#b", "it's", 'the "best"', "a=b", "[x]", "{y}", "a\\b", "100%", "x:y",
    "007", "1e3", "yes", "-1", " lead", "end ", "a\\", "*", "choice(a,b)", "null and void", "a & b; c", "`d`", "$HOME",
    "😀",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["data.root", "runs", "init", "name", "+data.drawings", "++sketch.weights"])
def test_a_path_of_any_characters_is_read_as_typed(key, name):
    (override,) = OverridesParser.create().parse_overrides([as_hydra_override(f"{key}={name}")])
    assert override.value() == name


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_may_have_any_name(name, tmp_path):
    cfg = compose_config(["data=folder", f"data.root={tmp_path / name}", f"runs={tmp_path / name}"])
    assert (cfg.data.root, cfg.runs) == (str(tmp_path / name),) * 2
    assert compose_config(["data=folder", as_hydra_override(f"data.root={tmp_path / name}")]).data.root == cfg.data.root


def test_quotes_null_and_other_keys_stay():
    same = ["init=null", "data.root=", "data.root='a b'", 'runs="a b"', "seed=1", "data.size=a(b", "--help", "data=folder"]
    assert [quoted(override) for override in same] == same
    assert compose_config(["init=null"]).init is None


def test_every_path_key_is_in_some_config():
    options = {"data": "folder", "sketch": "pidinet", "backbone": "sd15", "text": "clip", "codec": "kl",
               "diffusion": "folder", "hint": "controlnet", "task": "insert"}  # fmt: skip
    overrides = [f"{group}={option}" for group, option in options.items()]
    configs = [compose_config([*overrides, f"data={name}"]) for name in ("folder", "hf", "sketchy", "sketchycoco")]
    assert all(any(OmegaConf.select(cfg, key, default=1) != 1 for cfg in configs) for key in KEYS)


def test_a_home_folder_is_expanded_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = compose_config(["data=folder", "data.root=~/photos", "runs=~/runs", "cache.folder=~", "init=~nobody-here/x"])
    assert (cfg.data.root, cfg.runs, cfg.cache.folder) == (f"{tmp_path}/photos", f"{tmp_path}/runs", str(tmp_path))
    assert cfg.init == "~nobody-here/x"
    whole = compose_config(["data=folder", f"data.root={tmp_path}/photos"])
    assert config_hash(whole) == config_hash(compose_config(["data=folder", "data.root=~/photos"])), "the same run"
    result = command_lines.parse_args(
        ["run=~/a", "images=[~/a.png,b~c.png]", 'out="~/x y"', "prompt=~/a"],
        {"run": str, "images": list, "out": str, "prompt": str},
    )
    assert result == {"run": f"{tmp_path}/a", "images": [f"{tmp_path}/a.png", "b~c.png"], "out": f"{tmp_path}/x y",
                     "prompt": "~/a"}  # fmt: skip


# --- sweeps: commas separate, quotation marks keep them together


@pytest.mark.long
def test_commas_separate_the_members_of_a_sweep():
    members = combinations(["data.root='a,b',photos (1),写真", "seed=0,1", "init=choice(x,y)"])
    roots = list(dict.fromkeys(unquoted_value(member["data.root"]) for member in members))
    assert roots == ["a,b", "photos (1)", "写真"] and len(members) == 12
    assert all(compose_config(["data=folder", member["data.root"]]).data.root in roots for member in members)


@pytest.mark.parametrize("name", NAMES)
def test_a_value_of_a_sweep_file_is_the_members_value(name):
    (member,) = combinations([f"data.root={hydra_value(name)}"])
    assert unquoted_value(member["data.root"]) == name
    assert compose_config(["data=folder", member["data.root"]]).data.root == name


def test_multirun_takes_paths_with_commas_for_several(monkeypatch):
    taken = []
    monkeypatch.setattr("ragaf_exp.run.main", lambda: taken.extend(sys.argv[1:]))
    for flags in ([], ["-m"], ["--multirun"], ["hydra.mode=MULTIRUN"]):
        monkeypatch.setattr(sys, "argv", ["run", *flags, "init=a,b"])
        command_line()
    assert [text for text in taken if text.startswith("init")] == ["init='a,b'", *["init='a','b'"] * 3]


# --- quotation marks of arguments


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('a sign that says "STOP"', 'a sign that says "STOP"'),
        ('"a red circle"', "a red circle"),
        ("'a red circle'", "a red circle"),
        ('"STOP" on a sign', '"STOP" on a sign'),
        ('"STOP" left of "GO"', '"STOP" left of "GO"'),
        ('"a sign that says "STOP""', 'a sign that says "STOP"'),
        ('""STOP" on a sign"', '"STOP" on a sign'),
        ('5" wide', '5" wide'),
        ('"', '"'),
        ('""', ""),
        ("the dogs' bowl", "the dogs' bowl"),
        ("'tis a dog's", "'tis a dog's"),
        ('"it\'s"', "it's"),
    ],
)
def test_only_a_pair_of_quotation_marks_is_stripped(given, wanted):
    assert unquoted(given) == wanted
    assert command_lines.parse_args([f"prompt={given}"], {"prompt": str}) == {"prompt": wanted}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ('["a, b.png",c.png]', ["a, b.png", "c.png"]),
        ("'a,b'", ["a,b"]),
        ("[a.png, it's.png]", ["a.png", "it's.png"]),
        ("photos [1]", ["photos [1]"]),
        ("[photos [1],b]", ["photos [1]", "b"]),
        ("[ ]", []),
        ("a,,b,", ["a", "b"]),
    ],
)
def test_items_of_a_list(given, wanted):
    assert command_lines.parse_args([f"runs={given}"], {"runs": list}) == {"runs": wanted}


def test_split_keeps_quotation_marks():
    assert split("'a,b', c,\"d\"") == ["'a,b'", "c", '"d"'] and split("") == [""]


# --- refusals show what was typed, and nothing of Hydra's inside


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["data=foldr"], ("data=foldr", "casts, coco, edits, figures, folder, fscoco, hf, insertion, lineart")),
        (["graph/backend=x"], ("graph/backend=x", "dense, dgl, pyg")),
        (["hydra/launcher=zz"], ("hydra/launcher=zz", "joblib")),
        (["+experiment=smok"], ("experiment=smok", "smoke")),
        (["data.size=a(b"], ("data.size=a(b", "'data.size=\"VALUE\"'")),
        (["text.width='3"], ("text.width='3",)),
        (["data.size=63,64"], ("data.size: several values", "-m")),
        (["optim=muon,adamw"], ("optim: several values", "-m")),
        (["=3"], ("=3", "KEY=VALUE")),
        (["x y"], ("x y", "KEY=VALUE")),
    ],
)
def test_refusals_are_in_the_users_terms(arguments, says, refused):
    for main in (command_line, planning.main):
        line = refused(main, *arguments, says=says)
        assert not any(text in line for text in ("++", "search path", "provider=", "https:", "Exception")), line


@pytest.mark.parametrize("flag", ["--foo", "-x", "--foo=3", "--"])
def test_an_unknown_option_is_one_line(flag, refused):
    refused(command_line, flag, says=(f"error: {flag}: unknown option", "--multirun"))


def test_a_key_is_needed():
    with pytest.raises(UserError, match="KEY=VALUE"):
        compose_config(["=3"])
