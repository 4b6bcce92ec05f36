"""memory.shard: two processes with a part each train as one that holds all, and leave what any number goes on from."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_ranks import LAUNCH, rows
from torch import distributed, nn

from ragaf_exp.config.compose import compose_config, config_hash
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder
from ragaf_exp.training.ema import Ema
from ragaf_exp.training.sharding import finite, shard

pytestmark = pytest.mark.process

# two sharded processes; then again from an earlier checkpoint; then one, which is to hold all
STORY = (
    LAUNCH
    + """
print(launch([*argv, "memory.shard=true"]), flush=True)
folder = next(base for base, names, _ in os.walk(place) if "refine" in names)
def earlier(kept):
    shutil.move(folder + "/refine/00000005", place + "/" + kept)
    os.remove(os.path.dirname(folder) + "/status.json")
earlier("sharded")
print(launch([*argv, "memory.shard=true"]), flush=True)
earlier("again")
print(launch(argv, 1), flush=True)
"""
)
TAKEN = {"stage.coarse.steps": 2, "stage.refine.steps": 3, "stage.refine.region_steps": 2, "stage.log_every": 1,
         "stage.checkpoint_every": 2, "stage.validate_every": 4, "data.train": 24, "eval.test_items": 2,
         "optim.clip": 0.1, "memory.checkpointing": True, "eval.pictures": 0}  # fmt: skip


@pytest.fixture(scope="module")
def words(tiny) -> list[str]:
    remaining = [word for word in tiny if word.partition("=")[0] not in TAKEN]
    return [*remaining, *(f"{key}={value}" for key, value in TAKEN.items()), "optim=adamw"]


@pytest.fixture(scope="module")
def story(words, tmp_path_factory) -> dict:
    place = tmp_path_factory.mktemp("shard")
    done = subprocess.run([sys.executable, "-c", STORY, str(place), *words, f"runs={place}/runs"], capture_output=True,
                          text=True, timeout=280)  # fmt: skip
    output = [path.read_text() for path in sorted(place.glob("rank*.txt"))]
    assert done.returncode == 0, (done.stderr, output)
    codes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert codes == [[0, 0], [0, 0], [0]], output
    (folder,) = [path.parent for path in place.glob("runs/tiny/*/checkpoints") if (path / "refine").exists()]
    return {"place": place, "folder": folder, "said": output}


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory) -> Path:
    """A run of one process with these overrides."""
    return run(compose_config([*words, f"runs={tmp_path_factory.mktemp('alone')}"])).path


def tensors(place: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {f"{part}/{name}": value for part in ("model", "ema", "optimizer")
            for name, value in load_file(place / f"{part}.safetensors").items()}  # fmt: skip


def apart(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> float:
    """The largest difference of names and shapes that must be the same."""
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def test_the_loss_is_that_of_one_process(story, alone):
    for one, two in zip(rows(alone), rows(story["folder"]), strict=True):
        names = [name for name in one if name.startswith("loss")]
        assert (one["stage"], one["step"]) == (two["stage"], two["step"])
        assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=1e-4)


def test_checkpoints_are_whole_and_those_of_one_process(story, alone):
    """Weights, averages and moments: so clipping and the average saw all parts."""
    assert apart(tensors(alone / "checkpoints/refine/00000005"), tensors(story["place"] / "sharded")) < 2e-3
    one, two = (load_newest(place / "checkpoints", "coarse") for place in (alone, story["folder"]))
    assert apart(one.ema, two.ema) < 2e-3 and one.sources == two.sources


def test_a_continued_run_is_the_undisturbed_one_to_the_bit(story):
    assert "continuing from step 4 of 5" in story["said"][0]
    one, two = (story["place"] / name for name in ("sharded", "again"))
    assert all((two / path.name).read_bytes() == path.read_bytes() for path in one.iterdir())


def test_one_process_goes_on_from_what_two_left(story):
    result = load_newest(story["folder"] / "checkpoints", "refine")
    assert result.step == 5 and RunFolder(story["folder"]).state["state"] == "done"
    assert apart(tensors(story["place"] / "sharded"), tensors(story["folder"] / "checkpoints/refine/00000005")) < 2e-3


def test_one_process_is_refused_and_the_folder_is_the_unsharded_runs(words, tmp_path):
    sharded = compose_config([*words, "memory.shard=true", f"runs={tmp_path}"])
    assert config_hash(sharded) == config_hash(compose_config(words))
    with pytest.raises(UserError, match="memory.shard=true: needs several processes"):
        run(sharded)


@pytest.fixture
def group(tmp_path):
    """This process as the only one of a group."""
    distributed.init_process_group("gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize("place", ["device", "cpu", "off"])
def test_the_average_on_every_device(group, place):
    """It equals the average of the model that is not sharded: updated, gathered whole, and loaded again."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 1))
    plain[1].bias.requires_grad_(False)
    model = copy.deepcopy(plain)
    cpu = torch.device("cpu")
    usual, (_, parts) = Ema(plain, 0.9, place), shard(model, 0.9, place, cpu)
    for step in range(3):
        for one, two in zip(plain.parameters(), model.parameters(), strict=True):
            if one.requires_grad:
                one.data += step + 1
                two.data.to_local().add_(step + 1)
        usual.update(step)
        parts.update(step)
    parts.gather()
    held = {name: value.clone() for name, value in usual.model.state_dict().items()}
    with parts.serving() as model:
        assert apart(model.state_dict(), held) == 0
    if place != "off":
        parts.model.load_state_dict({name: value + 1 for name, value in held.items()})
        parts.scatter()
        parts.gather()
        trained = {name for name in held if name != "1.bias"}
        assert apart({n: parts.model.state_dict()[n] for n in trained}, {n: held[n] + 1 for n in trained}) == 0
    assert finite(parts.trained)
    next(parts.trained.parameters()).data.to_local().fill_(torch.nan)
    assert not finite(parts.trained)


@pytest.mark.parametrize("more", [
    "memory.tune=frozen", "memory.optimizer=adamw8bit", "memory.precision=fp16", "memory.channels_last=true",
    "memory.compile=true", "memory.step_in_backward=true optim.clip=0", "memory.features=all memory.offload=true",
    "optim=muon",
])  # fmt: skip
def test_what_can_t_be_sharded_is_refused(more):
    with pytest.raises(UserError, match=r"memory.shard=true: not with (memory|optim).*take (memory\.|optim)"):
        compose_config(["memory.shard=true", *more.split()])
