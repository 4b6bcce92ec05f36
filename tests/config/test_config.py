"""The config: every key known, typed and in range before any work, and nothing built but the package's own."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.build import build, locate
from ragaf_exp.config.compose import as_hydra_override, compose_config, config_hash, load_config
from ragaf_exp.config.schema import BUILT, NESTED, PLAIN
from ragaf_exp.config.validate import constructor_schema, validate
from ragaf_exp.core.errors import UserError
from ragaf_exp.core.resources import CONF
from ragaf_exp.runs.folder import RunFolder

PRESETS = ("experiment", "hydra", "member")  # of whole configs
CHOICE = CONF / "memory" / "auto.yaml"  # stands for one of the others
FILES = sorted(p for p in CONF.glob("*/**/*.yaml") if p.relative_to(CONF).parts[0] not in PRESETS and p != CHOICE)
KEY = {folder: key for key, folder in NESTED.items()}  # of groups within a group
GROUPS = {path: path.parent.relative_to(CONF).as_posix() for path in FILES}

# key -> values out of its range, after the options that have the key
OUT_OF_RANGE = {
    "cache.gigabytes": "0 -1 nan inf", "seed": "-1 4294967296",
    "cluster.cpus": "0", "cluster.gpus": "-1", "cluster.grace": "-1", "cluster.memory_gb": "-1 0.5", "cluster.minutes": "0",
    "cluster.nodes": "0", "cluster.parallel": "-1", "cluster.tasks": "0",
    "backbone.heads": "0 -1", "backbone.layers": "0", "backbone.head_width": "-1", "codec.patch": "0 -4",
    "data.heldout_share": "-0.1 1.1 nan", "data.max_objects": "6 0", "data.min_objects": "0 6", "data.seed": "-1",
    "data.size": "63 0 -64 8192", "data.width": "63 -64 8192", "data.test": "-1 0", "data.train": "-1", "data.val": "-1 0",
    "data.repeat_share": "2 -1 nan", "data.train_repeat_share": "2 -1 nan", "stage.refine.region_batch": "0",
    "stage.refine.coarse_steps": "0", "stage.curriculum": "-0.1 1.1 nan",
    "stage.cache_mb": "-1", "diffusion.min_snr": "-1 nan inf", "diffusion.snr_offset": "-1 nan",
    "diffusion.timesteps": "0 1", "eval.batch": "0", "eval.clip_batch": "0",
    "eval.lpips_batch": "-1", "eval.clip_precision": "int8", "eval.edges": "hough", "eval.lpips_net": "resnet",
    "eval.metrics": "[is]", "eval.bootstrap": "0", "eval.grid": "0", "eval.validation_drawn": "-1", "eval.pictures": "-1",
    "eval.test_items": "-1", "eval.validation_items": "0", "fusion.frequencies": "0", "fusion.hidden": "0",
    "fusion.high": "1.5 nan", "fusion.low": "-0.5", "fusion.sketch": "2", "graph.k": "0", "graph.min_border": "-1",
    "graph.radius": "0 nan", "hint.width": "0", "loss.diffusion": "-1 nan inf", "loss.region_latent": "-1",
    "loss.region_moments": "-1 nan inf", "loss.region_texture": "-0.1 nan inf",
    "loss.contrastive": "-1 nan inf", "loss.contrastive_until": "-0.1 1.1 nan", "loss.coverage": "-1 nan",
    "loss.entropy": "-1 inf", "loss.spans": "-1 nan",
    "optim.clip": "-1 nan inf", "optim.ema": "1.1 -0.1 nan", "optim.final_lr": "2", "optim.warmup": "-1",
    "optim.muon": "-1 nan",
    "optim.weight_decay": "-1 inf", "optim.betas": "[0.9] [0.9,1.0] []", "ragaf.frequencies": "-1", "ragaf.heads": "0 5",
    "ragaf.layers": "0", "ragaf.pooled_levels": "-1 9", "ragaf.temperature": "0 -1 nan inf",
    "injection.heads": "0 3", "injection.slots": "0", "injection.reach": "-1",
    "ragaf.width": "0 -128", "regions.gap": "0.6 nan", "regions.levels": "-1 33",
    "regions.closing": "loose", "regions.max_regions": "0 2000", "regions.min_area": "2 -1",
    "sampler.guidance": "-1 101 nan", "sampler.sketch_guidance": "-1 nan", "sampler.image_guidance": "-1 101 nan",
    "sampler.steps": "0 1001", "sketch.full": "0 1.1 nan",
    "sketch.resolution": "-1 15 5000", "sketch.safe_steps": "-1 256", "sketch.threshold": "-0.1 1.1 nan",
    "augment.affine": "-0.1 0.6 nan", "augment.jitter": "-1 0.2", "augment.width": "-1 0.2 inf", "augment.gaps": "-1 1.1",
    "augment.dropout": "-0.1 1.1 nan", "augment.specks": "-1 0.2", "augment.grain": "-1 0.6 nan",
    "sketch.epsilon": "nan inf -1", "sketch.high": "2", "sketch.low": "-1", "sketch.k": "1",
    "sketch.p": "-1", "sketch.phi": "0", "sketch.sigma": "-1 nan", "stage.accumulate": "0 3", "stage.batch": "0",
    "stage.checkpoint_every": "0", "stage.coarse.lr": "0 -1 nan inf", "stage.coarse.scale": "0",
    "stage.coarse.steps": "0 -1", "stage.keep": "0",
    "stage.log_every": "0", "stage.max_seconds": "-1 nan", "stage.refine.lr": "0", "stage.refine.recolour": "2",
    "stage.refine.region_steps": "-1", "stage.refine.steps": "0", "stage.refine.region_lr": "0",
    "stage.refine.strength": "0 1.5 nan", "stage.refine.scale": "0", "stage.coarse.strength": "0 1.5 nan",
    "stage.coarse.recolour": "2", "stage.coarse.coarse_steps": "0", "stage.coarse.region_steps": "-1",
    "stage.coarse.region_batch": "0", "stage.coarse.region_lr": "0",
    "study.alone_steps": "-1", "study.coarse_steps": "-1", "study.alone_hint": "0", "study.alone_text": "0",
    "study.alone_lr": "0 nan", "stage.validate_every": "0",
    "stage.workers": "-1", "stage.run": "[] [fine]", "task.caption_dropout": "1.1 -0.1 nan",
    "task.sketch_dropout": "2", "text.heads": "0 3", "text.layers": "0", "text.max_tokens": "1", "text.vocabulary": "0",
    "text.width": "0", "backbone.widths": "[64] [33,64] [0,0]", "injection.points": "[nowhere]",
    "memory.budget": "-1 nan inf",
    "memory.device": "tpu", "memory.precision": "int8 fp8", "memory.tune": "some",
    "memory.attention": "none", "memory.merge_scale": "nan inf", "memory.lora_rank": "0 -1",
    "hint.channels": "[16,32] [0]", "hint.layers": "0", "hint.single_layers": "-1 97", "memory.swap": "-1 97",
    "memory.optimizer": "sgd", "memory.ema": "disk", "memory.features": "some", "task.crops": "-1",
    "task.mirror": "-0.1 1.1 nan", "sampler.scheduler": "best",
    "task.assign": "-0.1 1.5 nan",
    "eval.prompted_items": "-1", "data.max_areas": "0 17",
    "diffusion.prediction": "x1", "diffusion.schedule": "straight", "regions.strokes": "thick", "name": "a/b '' latest",
    "backbone.base": "0 33", "backbone.multipliers": "[1] [0,1]", "codec.tiling": "-1 12",
    "diffusion.beta_start": "0 1.5 nan", "diffusion.beta_end": "0 1.5 nan", "backbone.weights": "some",
    "data.year": "2013 2101", "data.per_category": "-1", "data.stroke": "0 0.3 nan",
    "data.cache_mb": "-1", "data.val_share": "1 -0.1", "data.test_share": "1",
    "data.low": "1999 nan", "data.high": "1000 20001", "data.tint": "-0.1 2", "data.exposure": "-1 5", "data.gamma": "-1 2",
    "data.photo_share": "-0.1 1.1", "data.shadow_share": "2 nan", "task.object_share": "1.1 -1", "task.outside": "2 nan",
    "task.image_dropout": "1.1 -0.1", "task.light_dropout": "2 nan",
    "task.reach": "-0.1 nan", "task.perceptual": "-1 nan", "task.hints_dropout": "1.1 -0.1", "task.wrong": "2 nan",
    "data.weights": "[-1.0] [nan]",
    "backbone.width": "0 36 -1", "backbone.depth": "0", "backbone.patch_size": "0", "backbone.positions": "learned",
    "diffusion.shift": "0 -1 101 nan", "diffusion.mean": "11 nan", "diffusion.deviation": "0 nan",
    "diffusion.patch_size": "0", "diffusion.density": "normal", "diffusion.shift_by": "size", "diffusion.weighting": "snr",
    "injection.share": "0 1.1 nan", "injection.strength": "-1 nan", "injection.isolate": "-1 1.1 nan",
    "memory.base": "int3", "backbone.every": "0 97", "backbone.guidance": "-1 101 nan", "sampler.norm_patch": "-1 33",
    "backbone.window": "1 65", "stage.tokens": "-1", "task.dream": "-1 nan", "text.image_side": "-1",
}  # fmt: skip
AUGMENTATIONS = ("affine", "jitter", "width", "gaps", "dropout", "specks", "grain")
CASTS = ("low", "high", "tint", "exposure", "gamma", "photo_share")
FOLDER = ("data.cache_mb", "data.val_share", "data.test_share")
TRANSFORMER = tuple(f"backbone.{key}" for key in ("width", "depth", "patch_size", "positions", "window"))
FLOW = tuple(f"diffusion.{key}" for key in ("shift", "mean", "deviation", "patch_size", "density", "shift_by", "weighting"))
OPTIONS = {
    "fusion.low": {"fusion": "heuristic"}, "fusion.high": {"fusion": "cosine"}, "fusion.sketch": {"fusion": "fixed"},
    **dict.fromkeys(("injection.heads", "injection.slots", "injection.reach"), {"injection": "cross"}),
    "graph.k": {"graph": "knn"}, "graph.min_border": {"graph": "adjacency"}, "graph.radius": {"graph": "radius"},
    "sketch.low": {"sketch": "canny"}, "sketch.high": {"sketch": "canny"}, "sketch.sigma": {"sketch": "canny"},
    "sketch.full": {"sketch": "dog"},
    **dict.fromkeys(("sketch.resolution", "sketch.safe_steps", "sketch.threshold"), {"sketch": "pidinet"}),
    **dict.fromkeys([f"augment.{key}" for key in AUGMENTATIONS], {"augment": "drawing"}),
    **dict.fromkeys(("sketch.epsilon", "sketch.k", "sketch.p", "sketch.phi"), {"sketch": "xdog"}),
    **dict.fromkeys(FOLDER, {"data": "folder"}), "data.year": {"data": "coco"},
    **dict.fromkeys(("data.per_category", "data.stroke"), {"data": "quickdraw"}),
    "data.max_areas": {"data": "lineart"},
    **dict.fromkeys([f"data.{key}" for key in CASTS], {"data": "casts"}),
    "data.shadow_share": {"data": "removal"}, "task.reach": {"task": "remove"},
    **dict.fromkeys(("task.object_share", "task.outside", "task.image_dropout"), {"task": "inpaint"}),
    "task.light_dropout": {"task": "white_balance"},
    "data.weights": {"data": "mixture"},
    **dict.fromkeys(("task.hints_dropout", "task.wrong"), {"task": "paint"}), "task.perceptual": {"task": "insert"},
    **dict.fromkeys(("backbone.base", "backbone.multipliers"), {"backbone": "unet160"}),
    **dict.fromkeys(("hint.channels", "hint.single_layers"), {"hint": "controlnet"}), "hint.layers": {"hint": "t2i"},
    "codec.tiling": {"codec": "taesd"}, "backbone.weights": {"backbone": "sd15"},
    **dict.fromkeys(TRANSFORMER, {"backbone": "dit", "injection": "tokens"}), **dict.fromkeys(FLOW, {"diffusion": "flow"}),
    **dict.fromkeys(("injection.share", "injection.strength", "injection.isolate"), {"injection": "mask"}),
    **dict.fromkeys(("backbone.every", "backbone.guidance"), {"backbone": "flux"}), "task.dream": {"task": "insert"},
    "text.image_side": {"text": "qwen_image_edit"},
}  # fmt: skip


def flat(node: dict, prefix: str = "") -> dict:
    """Nested keys joined with dots."""
    result = {}
    for key, value in node.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return result


@pytest.fixture(scope="module")
def every_option() -> dict[str, dict]:
    """`group=option` -> the checked config with it, for all of conf/."""
    base = OmegaConf.to_container(compose_config([]))

    def checked(path: Path, group: str) -> DictConfig:
        if "@package _global_" in path.read_text():  # it chooses from other groups too
            return compose_config([f"{group}={path.stem}"])
        return validate(OmegaConf.create({**base, KEY.get(group, group): OmegaConf.load(path)}))

    return {f"{KEY.get(group, group)}={path.stem}": OmegaConf.to_container(checked(path, group))
            for path, group in GROUPS.items()}  # fmt: skip


def test_every_number_of_every_option_has_a_range_checked_here(every_option):
    numbers = set()
    for cfg in every_option.values():
        numbers |= {k for k, v in flat(cfg).items() if isinstance(v, int | float) and not isinstance(v, bool)}
    assert numbers - set(OUT_OF_RANGE) == set()


@pytest.fixture(scope="module")
def small(tiny) -> dict:
    return OmegaConf.to_container(compose_config(tiny))


@pytest.mark.parametrize("key", OUT_OF_RANGE)
def test_out_of_range_is_one_line_before_any_work(key, small, tmp_path):
    options = {group: OmegaConf.load(CONF / group / f"{name}.yaml") for group, name in OPTIONS.get(key, {}).items()}
    options = {group: option.get(group, option) for group, option in options.items()}  # some choose from other groups too
    good = {**small, **options}
    if key in FOLDER:
        good["data"]["root"] = str(tmp_path)
    if key == "codec.tiling":
        good["codec"]["weights"] = "none"
    for value in OUT_OF_RANGE[key].split():
        with pytest.raises(UserError) as refusal:
            bad = OmegaConf.create(good)
            OmegaConf.update(bad, key, yaml.safe_load({"nan": ".nan", "inf": ".inf"}.get(value, value)))
            parts = assemble(validate(bad), RunFolder(tmp_path))
            assert parts.source is not None
            with torch.device("meta"):
                make_model(parts, "refine")
            assert f"{key}={value}" in ("data.val=0", "data.test=0"), f"{key}={value} passes"
            raise UserError(key)  # an empty split is refused by the experiment, see test_training.py
        line = str(refusal.value)
        assert key in line and "\n" not in line


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.sise=32", ("data.sise", "size", "train")),
        ("+data.sise=32", ("data.sise", "size")),
        ("stage.coarse.stesp=3", ("stage.coarse.stesp", "steps", "lr")),
        ("optim.learning_rate=1", ("optim.learning_rate", "betas", "warmup")),
        ("fusion.low=0.5", ("fusion.low", "hidden")),  # another option's key
        ("+typo=3", ("typo", "seed", "data", "sampler")),
        ("+stage.fine.steps=3", ("stage.fine", "coarse", "refine")),
        ("+data.size.x=1", ("data.size",)),
        ("data.size=big", ("data.size", "big")),
        ("data.size=32.5", ("data.size", "32.5")),
        ("data.train=null", ("data.train",)),
        ("stage.coarse.lr=fast", ("stage.coarse.lr", "fast")),
        ("stage.run=coarse", ("stage.run",)),
        ("backbone.widths=[a,b]", ("backbone.widths",)),
        ("injection.words=3.5", ("injection.words",)),
        ("seed=first", ("seed=first", "int")),
        ("seed=1.5", ("seed=1.5", "int")),
        ("stage=null", ("stage=null", "both", "refine")),
        ("graph=3", ("graph=3", "knn", "none")),
        ("graph/backend=3", ("graph/backend=3", "dense", "pyg")),
        ("graph_backend=dgl", ("graph_backend=dgl", "graph/backend=")),
        ("graph_backend.k=3", ("graph_backend.k",)),
        ("~data", ("data", "conf/data")),
    ],
)
def test_a_wrong_key_or_type_is_one_line_with_the_known_ones(override, says):
    with pytest.raises(UserError) as refusal:
        compose_config([override])
    line = str(refusal.value)
    assert "\n" not in line and all(text in line for text in says), line


@pytest.mark.parametrize("override", ["name=a\0b", "data=folder data.root=photos data.text_column=a\0b", "eval.resize=\0"])
def test_a_nul_character_is_refused(override, small):
    *options, last = override.split()
    key, _, value = last.partition("=")
    cfg = compose_config([*options]) if options else OmegaConf.create(small)
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError, match=f"{re.escape(key)}: holds a NUL character; remove it"):
        validate(cfg)


@pytest.mark.parametrize(("key", "value"), [("eval.lpips_net", "x" * 10_000), ("data.kinds", ["x" * 3_000] * 100)])
def test_a_long_value_is_shortened_in_its_refusal(key, value):
    cfg = compose_config(["data=relations"])
    OmegaConf.update(cfg, key, value)
    with pytest.raises(UserError, match=rf"{re.escape(key)}=.*x\.\.\.") as refusal:
        validate(cfg)
    assert len(str(refusal.value)) < 1_000


def test_keys_that_no_yaml_states_can_be_set():
    cfg = compose_config(["stage.coarse.steps=7", "optim.final_lr=0.5", "text.vocabulary=99", "+eval.bootstrap=12"])
    assert (cfg.stage.coarse.steps, cfg.optim.final_lr, cfg.text.vocabulary, cfg.eval.bootstrap) == (7, 0.5, 99, 12)
    remaining = ["+experiment=smoke", "graph=knn", "~logger", "++a.b=1", "hydra.mode=RUN", "hydra/launcher=x", "--help"]
    assert [as_hydra_override(word) for word in remaining] == remaining


def test_schemas_fill_in_what_an_option_leaves_out(every_option):
    for option, cfg in every_option.items():
        group = option.partition("=")[0]
        schema = PLAIN[group] if group in PLAIN else constructor_schema(locate(cfg[group]["_target_"], group))
        assert set(cfg[group]) == set(schema.__dataclass_fields__)
    assert set(GROUPS.values()) == {NESTED.get(key, key) for key in (*PLAIN, *BUILT)}


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "hydra.utils.instantiate", "ragaf_exp.run.hydra.utils.instantiate", "ragaf_exp",
     "ragaf_exp.config.command_line.os.system", "ragaf_exp.config.build.instantiate",
     "ragaf_exp.core.files.write_bytes", "ragaf_exp.config.command_line.os", "ragaf_exp.runs.folder.subprocess.run",
     "ragaf_exp.models.codecs.pixel.nn.Module", "ragaf_exp.models.codecs.pixel.Tensor",
     "ragaf_exp.data.sources.scenes.Nothing", "ragaf_exp.nowhere.Scenes", "ragaf_exp..Scenes", "ragaf_exp.", "",
     "ragaf_expx.A", "ragaf_exp.runs.folder.RunFolder.create"],
)  # fmt: skip
def test_targets_outside_the_package_are_refused(target):
    with pytest.raises(UserError, match=r"data\._target_"):
        locate(target, "data")
    with pytest.raises(UserError, match=r"data\._target_"):
        compose_config([f"data._target_='{target}'"])


def test_a_nested_target_is_refused_without_running(tmp_path):
    made = tmp_path / "made"
    call = {"_target_": "os.mkdir", "path": str(made)}
    for node in (
        {"_target_": "ragaf_exp.data.sources.scenes.Scenes", "size": call},
        {"_target_": "ragaf_exp.models.backbones.unet.TinyUNet", "widths": [call]},
        {"_target_": "ragaf_exp.data.sources.scenes.Scenes", "_args_": [call]},
        {"_target_": "ragaf_exp.data.sources.scenes.Scenes", "deep": {"deeper": [{"x": call}]}},
    ):
        with pytest.raises(UserError, match="_target_"):
            build(OmegaConf.create(node), "data")
    assert not made.exists()


def test_hydras_own_keys_are_refused_in_a_group():
    for key, value in (("_args_", "[1]"), ("_partial_", "true"), ("_recursive_", "true"), ("_convert_", "all")):
        with pytest.raises(UserError, match=f"data.{key}"):
            compose_config([f"+data.{key}={value}"])


def test_the_hash_is_of_all_that_a_run_computes():
    same = [compose_config(words) for words in ([], ["runs=elsewhere"], ["logger=none"], ["cache=none"])]
    assert len({config_hash(cfg) for cfg in same}) == 1
    changed = [
        compose_config([word]) for word in ("seed=3", "graph=none", "graph/backend=pyg", "data.size=32", "optim.clip=2")
    ]
    assert len({config_hash(cfg) for cfg in [same[0], *changed]}) == 6


def test_the_hash_does_not_depend_on_how_a_default_is_written():
    default = compose_config([])
    keys = ("stage.coarse.lr", "stage.refine.strength", "data.heldout_share", "optim.clip", "hint.width")
    output = [f"{key}={OmegaConf.select(default, key)}" for key in keys]
    assert config_hash(compose_config([*output, "optim.clip=1"])) == config_hash(default)


def test_a_config_survives_its_file(tiny, tmp_path):
    cfg = compose_config([*tiny, f"runs={tmp_path}"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    read = load_config(tmp_path / "config.yaml")
    assert read == cfg and config_hash(read) == config_hash(cfg)


def test_a_run_folder_does_not_name_this_hosts_cache_folder(tmp_path):
    cfg = compose_config(["cache.folder=/a/strangers", "cache.gigabytes=3"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    assert load_config(tmp_path / "config.yaml").cache == {"enabled": True, "folder": "", "gigabytes": 3.0}
    del cfg.cache  # as in runs from before there was one
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    assert load_config(tmp_path / "config.yaml").cache == compose_config([]).cache


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "missing"),
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"- a\n- b\n", "not a mapping"),
        (b"just words", "config.yaml"),
        (b"a: [1, 2", "damaged"),
        (b"\xff\xfe\x00", "damaged"),
        (b"!!python/object/apply:os.system ['true']", "damaged"),
        (b"data: ${oc.env:HOME}", "interpolation"),
        (b"seed: 0", "missing"),
    ],
)
def test_damaged_config_files_are_one_line(content, says, tmp_path):
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=says) as refusal:
        load_config(tmp_path / "config.yaml")
    assert "\n" not in str(refusal.value)


def test_paths_in_conf_are_all_read_from_the_checkout():
    assert Path(CONF, "config.yaml").is_file() and os.path.isabs(CONF)
