"""Members of the studies: no two the same, and all alike in whatever they are not about."""

from __future__ import annotations

import itertools

import pytest
import torch
from omegaconf import OmegaConf

from ragaf_exp.assembly.assemble import assemble
from ragaf_exp.assembly.model import make_model
from ragaf_exp.config.build import build
from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.randomness import generator, item_noise
from ragaf_exp.core.resources import CONF
from ragaf_exp.data.loader import batch_order
from ragaf_exp.diffusion.process import Diffusion
from ragaf_exp.experiments import shared_stage
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.step_noise import sample_step_noise

pytestmark = pytest.mark.long

MEMBERS = sorted(path.stem for path in (CONF / "member").glob("*.yaml"))
STUDIES = ("ablation", "ablation_quick")
REPEATED, SEEDS = ("full", "baseline", "graph_none"), (0, 1, 2)
# what decides data, its order, noise, optimiser, test items and sampler: the same for every member
ALIKE = ("seed", "data", "sketch", "augment", "regions", "diffusion", "sampler", "eval", "task", "optim", "codec", "text",
         "memory", "stage.batch", "stage.accumulate", "stage.refine.region_batch", "stage.refine.steps",
         "stage.refine.region_steps", "stage.refine.lr")  # fmt: skip
OWN_STEPS = ("stage.refine.steps", "stage.refine.region_steps")
ALONE = ("baseline", "controlnet", "t2i")  # stage 1 is all that they have
OWN_STAGE_1 = (*ALONE, "with_curriculum")  # which stage 1 follows too
OWN = {"assigned": {"task"}, "baseline": {"text"}}  # the latter wider, so that it has as many parameters
ABOUT = {"graph": "graph", "fusion": "fusion", "with_words": "injection", "bottleneck": "injection",
         "film": "injection", "cross": "injection", "appended": "injection", "mask": "injection",
         "multilevel": "ragaf", "with_attention": "loss",
         "with_texture": "loss", "with_spans": "loss", "no_region": "loss", "with_curriculum": "stage",
         "coarse_input": "stage", "from_noise": "stage", "assigned": "task"}  # fmt: skip


@pytest.fixture(scope="module")
def configs() -> dict[tuple[str, str], object]:
    return {(study, m): compose_config([f"+experiment={study}", f"member={m}"]) for study in STUDIES for m in MEMBERS}


@pytest.fixture(scope="module")
def seeded(configs) -> dict[tuple[str, str, int], object]:
    """The members that the quick study repeats, with each of its seeds."""
    further = {(study, m, s): compose_config([f"+experiment={study}", f"member={m}", f"seed={s}"])
               for study, m, s in itertools.product(STUDIES, REPEATED, SEEDS[1:])}  # fmt: skip
    return further | {(study, m, SEEDS[0]): configs[study, m] for study, m in itertools.product(STUDIES, REPEATED)}


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_members_are_the_same_run(study, configs):
    hashes = {config_hash(configs[study, m]): m for m in MEMBERS}
    assert len(hashes) == len(MEMBERS)


@pytest.mark.parametrize("study", STUDIES)
def test_data_noise_steps_and_test_items_are_those_of_full(study, configs):
    for member in MEMBERS:
        own = OWN.get(member, set())
        mine, full = configs[study, member], configs[study, "full"]
        differing = [key for key in ALIKE if OmegaConf.select(mine, key) != OmegaConf.select(full, key)]
        assert set(differing) <= own, member
        assert mine.stage.coarse == full.stage.coarse or member.startswith(ALONE), member
        assert mine.study.member == member and mine.study.share


@pytest.mark.parametrize("study", STUDIES)
def test_the_streams_of_a_seed_are_the_same_numbers(study, seeded):
    """Indices of batches, noise and timesteps of a step, noise of a test item: of full, baseline and graph_none."""
    every = []
    for seed in SEEDS:
        streams = []
        for name in REPEATED:
            cfg = seeded[study, name, seed]
            order = [list(batch_order(cfg.data.train, cfg.stage.batch, cfg.seed, range(s, s + 1))) for s in (0, 77)]
            rng, shape = generator(cfg.seed, "train", "coarse", 5), torch.Size((4, 3, 8, 8))
            drawn = sample_step_noise(Diffusion(), shape, 1000, {"text": 0.1, "sketch": 0.1}, 0.0, rng)
            noise = item_noise(cfg.seed, "coarse", ["scenes0-test-3"], (3, 8, 8))
            streams.append((order, drawn.noise.tolist(), drawn.timesteps.tolist(), noise.tolist()))
        assert streams[0] == streams[1] == streams[2]
        every.append(streams[0])
    assert every[0] != every[1] != every[2]


@pytest.mark.parametrize("study", STUDIES)
def test_a_further_seed_changes_the_seed_alone(study, seeded, configs):
    """Another run of the same member: the report pools them."""
    assert len({config_hash(cfg) for (name, *_), cfg in seeded.items() if name == study}) == len(REPEATED) * len(SEEDS)
    for member, seed in itertools.product(REPEATED, SEEDS):
        mine = OmegaConf.merge(seeded[study, member, seed], {"seed": 0})
        assert mine == configs[study, member] and mine.study.member == member


def test_members_that_share_stage_1_are_those_that_do_not_change_it(configs, seeded):
    for study in STUDIES:
        folders = {m: shared_stage.folder_of(configs[study, m]).path for m in MEMBERS}
        for member, folder in folders.items():
            assert (folder == folders["full"]) != member.startswith(OWN_STAGE_1), member
        first = {(m, s): shared_stage.folder_of(seeded[study, m, s]).path for m, s in itertools.product(REPEATED, SEEDS)}
        assert all(first["graph_none", s] == first["full", s] != first["baseline", s] for s in SEEDS)
        assert len({first["full", s] for s in SEEDS}) == len(SEEDS), "each seed has its own"


@pytest.mark.parametrize("study", STUDIES)
def test_the_baseline_has_as_many_parameters_and_no_fewer(study, tmp_path):
    cfg = compose_config([f"+experiment={study}", "data.train=64"])
    parts, sizes = assemble(cfg, RunFolder(tmp_path)), {}
    for member, stage in (("full", "refine"), ("baseline", "coarse")):
        parts.cfg = compose_config([f"+experiment={study}", f"member={member}", "data.train=64"])
        with torch.device("meta"):
            sizes[member] = sum(p.numel() for p in make_model(parts, stage).parameters())
    assert 1.0 <= sizes["baseline"] / sizes["full"] < 1.03


def test_each_graph_type_and_fusion_is_a_member(configs):
    """full's own aside: an option that is added to conf/ asks to be studied."""
    full = configs["ablation", "full"]
    for group in ("graph", "fusion"):
        options = {OmegaConf.load(p)._target_ for p in (CONF / group).glob("*.yaml")} - {full[group]._target_}
        studied = {configs["ablation", m][group]._target_ for m in MEMBERS}
        assert options <= studied, options - studied


def test_each_loss_that_full_has_is_off_in_one(configs):
    full = configs["ablation_quick", "full"].loss
    for name in (n for n, weight in full.items() if weight > 0 and n != "diffusion"):
        off = [m for m in MEMBERS if configs["ablation_quick", m].loss[name] == 0]
        assert off, f"loss.{name}"


def test_a_member_differs_from_full_in_what_it_is_about_alone(configs):
    for member, prefix in itertools.product(MEMBERS, ABOUT):
        if not member.startswith(prefix):
            continue
        mine, full = (OmegaConf.to_container(configs["ablation_quick", m]) for m in (member, "full"))
        assert {k for k in mine if mine[k] != full[k]} == {ABOUT[prefix], "study"}, member


def test_with_time_all_members_have_six_times_the_steps():
    """Also members that set their own steps: neither they nor `convergence` may undo the other's."""

    def counts(study: str, member: str) -> tuple[int, ...]:
        stage = compose_config([f"+experiment={study}", f"member={member}"]).stage
        return stage.coarse.steps, *((stage.refine.region_steps, stage.refine.steps) if "refine" in stage.run else ())

    for member in ("full", "baseline"):
        short, long = (counts(study, member) for study in ("ablation_quick", "convergence"))
        assert long == tuple(6 * steps for steps in short), member


def test_members_of_transformers_differ_in_network_injection_and_process_alone(tmp_path):
    """Networks with region tokens have as many parameters within 5 %; masks and appended tokens have no more."""
    names = sorted(path.stem for path in (CONF / "member/transformers").glob("*.yaml"))
    every = {m: compose_config(["+experiment=transformers", f"member=transformers/{m}", "data.train=64"]) for m in names}
    assert len({config_hash(cfg) for cfg in every.values()}) == len(names) == 23
    parts, sizes = assemble(every["unet"], RunFolder(tmp_path)), {}
    for name, cfg in every.items():
        assert cfg.study.member == name
        kind = name.split("_")[-1]
        own = ("diffusion",) if kind in ("v", "eps", "flow") else OWN_STEPS if kind == "trained" else ()
        alike = [key for key in ALIKE if key not in own]
        assert all(OmegaConf.select(cfg, key) == OmegaConf.select(every["unet"], key) for key in alike), name
        parts.cfg = cfg
        parts.diffusion = build(cfg.diffusion, "diffusion")
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in make_model(parts, "refine").parameters())
    for name, size in sizes.items():
        tokens = "mask" not in name and not name.endswith("appended")
        assert 0.8 * sizes["unet"] < size < 1.05 * sizes["unet"] and (not tokens or size > 0.95 * sizes["unet"]), name
