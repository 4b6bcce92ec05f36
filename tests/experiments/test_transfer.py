"""Starting a run from a run of another task: what fits is taken, and one line names the rest."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from ragaf_exp.config.compose import compose_config
from ragaf_exp.core.errors import UserError
from ragaf_exp.experiments.experiment import run
from ragaf_exp.experiments.training import Training
from ragaf_exp.inference.load import load_run
from ragaf_exp.models.loading.transfer import transfer
from ragaf_exp.runs.checkpoints import load_newest
from ragaf_exp.runs.folder import RunFolder

SHORT = "stage=coarse stage.coarse.steps=3 stage.validate_every=3 stage.checkpoint_every=1 data=insertion".split()


def overrides(tiny: list[str], *more: str) -> list[str]:
    words = [*SHORT, *more]
    replaced = {word.partition("=")[0] for word in words}
    return ["task=insert", *(word for word in tiny if word.partition("=")[0] not in replaced), *words]


def test_equal_shapes_more_inputs_and_tables():
    here = nn.ModuleDict({"same": nn.Linear(2, 3), "wide": nn.Conv2d(5, 4, 1), "table": nn.Embedding(4, 2),
                          "new": nn.Linear(1, 1), "other": nn.Linear(3, 3)})  # fmt: skip
    there = nn.ModuleDict({"same": nn.Linear(2, 3), "wide": nn.Conv2d(2, 4, 1), "table": nn.Embedding(3, 2),
                           "gone": nn.Linear(1, 1), "other": nn.Linear(2, 2)})  # fmt: skip
    before = {name: value.clone() for name, value in here.state_dict().items()}
    result = transfer(here, there.state_dict(), {"table.weight": [(0, 2), (3, 1)]}, fixed={"same.bias"})
    assert torch.equal(here["same"].weight, there["same"].weight) and torch.equal(here["same"].bias, before["same.bias"])
    assert torch.equal(here["wide"].weight[:, :2], there["wide"].weight)
    assert torch.equal(here["wide"].weight[:, 2:], before["wide.weight"][:, 2:])
    assert torch.equal(here["table"].weight[[0, 3]], there["table"].weight[[2, 1]])
    assert torch.equal(here["table"].weight[[1, 2]], before["table.weight"][[1, 2]])
    assert torch.equal(here["other"].weight, before["other.weight"])
    assert result.unused == ["gone.bias", "gone.weight"] and set(result.part) == {"wide.weight", "table.weight"}
    assert "same.weight" in result.whole and str(result).startswith("2 of 8 tensors taken; in part:")


@pytest.mark.long
def test_insertion_starts_from_a_sketch_run(tiny, finished, tmp_path, caplog):
    cfg = compose_config([*overrides(tiny), f"init={finished}", f"runs={tmp_path}"])
    experiment = Training(cfg, RunFolder.create(cfg))
    with caplog.at_level(logging.INFO):
        model = experiment.trainer("coarse", {}).bare
    (line,) = [record.getMessage() for record in caplog.records if "tensors taken" in record.getMessage()]
    assert "in part: " in line and "not in it: extra_in" in line and "\n" not in line
    source = load_newest(RunFolder(finished).checkpoints, "coarse", parts=("ema",)).ema
    assert torch.equal(model.state_dict()["backbone.unet.conv_in.weight"], source["backbone.unet.conv_in.weight"])
    mine, theirs = model.text.tokenizer.get_vocab(), load_run(*RunFolder.read(finished))[0].tokenizer.get_vocab()
    word = next(token for token in mine if "circle" in token)
    rows = model.state_dict()["text.token.weight"][mine[word]], source["text.token.weight"][theirs[word]]
    assert torch.equal(*rows), "a token has the same embedding, wherever the vocabulary lists it"


@pytest.mark.long
def test_both_stages_start_from_it_and_the_run_is_independent_of_it(tiny, run_copy, tmp_path, caplog):
    words = overrides(tiny, "stage=both", "stage.refine.steps=2", "stage.refine.region_steps=1")
    cfg = compose_config([*words, f"init={run_copy}", f"runs={tmp_path / 'new'}"])
    with caplog.at_level(logging.INFO):
        path = run(cfg).path
    lines = [record.getMessage() for record in caplog.records if "tensors taken" in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["stage coarse", "stage refine"]
    assert "not in it" not in lines[1], "stage 2's own modules are the same in both tasks"
    run_copy.rename(run_copy.with_name("gone"))
    (path / "metrics.json").unlink()
    assert (run(cfg).path / "metrics.json").exists(), "a run that has its checkpoints needs no init"


def test_a_wrong_init_is_one_line_before_any_work(tiny, tmp_path):
    with pytest.raises(UserError, match="no such run folder"):
        run(compose_config([*overrides(tiny), "init=nowhere", f"runs={tmp_path}"]))
    with pytest.raises(UserError, match="not with study.share"):
        run(compose_config([*overrides(tiny), "init=nowhere", "study.share=true", f"runs={tmp_path}"]))
