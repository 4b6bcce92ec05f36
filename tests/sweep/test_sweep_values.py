"""Values that sweeps vary, read as the rest of the suite reads them, and members that are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sweep_checkout import call, make_checkout, sweep

from ragaf_exp.config.compose import as_hydra_override
from ragaf_exp.core.errors import UserError
from ragaf_exp.run import expanded
from ragaf_exp.sweep import search
from ragaf_exp.sweep.definition import combinations, hydra_value, parse_overrides, read_sweep, unquoted_value
from ragaf_exp.sweep.members import compose_members


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return make_checkout(tmp_path_factory.mktemp("values") / "checkout")


def question(tmp_path: Path, content: str) -> str:
    (path := tmp_path / "q.yaml").write_text(content + "\n")
    return str(path)


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_refused_member_does_not_end_a_multirun(launcher, checkout):
    if launcher == "joblib":
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", f"name={launcher}", "stage.batch=8", "stage.accumulate=3,1,5,2", f"hydra/launcher={launcher}"]
    ended = call(checkout, "ragaf_exp.run", *words)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert sum("stage.accumulate=3: must divide" in line for line in lines) == 2  # when it happens, and at the end
    assert sum("stage.accumulate=5: must divide" in line for line in lines) == 1
    assert lines[-1].endswith("the other members were run") and "stage.accumulate=3" in lines[-1]
    assert len(list((checkout / "runs" / launcher).glob("*/metrics.json"))) == 2


def test_a_multirun_without_faults_ends_well_and_one_run_is_refused_in_one_line(checkout):
    ended = call(checkout, "ragaf_exp.run", "-m", "name=well", "seed=0,4")
    assert ended.returncode == 0, ended.stderr
    ended = call(checkout, "ragaf_exp.run", "stage.batch=8", "stage.accumulate=3")
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "0.0001"])
def test_numbers_are_read_as_the_config_reads_them(number, tmp_path):
    content = f"search: {{space: {{stage.coarse.lr: {{low: {number}, high: 1e-2, log: true}}}}}}"
    space = search._checked(read_sweep(question(tmp_path, content)))["space"]
    assert space["stage.coarse.lr"]["low"] == 1e-4
    grid = read_sweep(question(tmp_path, f"grid: {{stage.coarse.lr: [{number}]}}"))
    (member,) = compose_members([*grid.all_overrides, f"runs={tmp_path}"])
    assert member.cfg.stage.coarse.lr == 1e-4


@pytest.mark.parametrize(("content", "message"), [
    ("grid: {graph: [complete, null]}", "graph=complete,null: no option of the group"),
    ("grid: {graph: [no]}", "graph=false: no option"), ("grid: {graph: [{a: 1}]}", "grid: graph: a value must be"),
    ("grid: {'': [1]}", "not a config key"), ("grid: {'a key': [1]}", "not a config key"),
    ("name: [a]", "name: must be text"),
    ("grid: {seed: [0]}\ngrid: {seed: [1]}", "duplicate key"), ("overrides: ['a=${']", "not valid YAML"),
    ("grid: &x [*x]", "recursive alias"), ("grid: {null: [1]}", "not valid YAML"),
])  # fmt: skip
def test_values_that_no_member_can_have(content, message, tmp_path):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        compose_members([*read_sweep(question(tmp_path, content)).all_overrides, f"runs={tmp_path}"])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("space", "message"), [
    ("{a: {low: x, high: 3}}", "low=x: must be a number"), ("{a: {low: 3, high: 1}}", "low <= high"),
    ("{a: {low: 0, high: 1, log: true}}", "low >= 1"), ("{a: {low: 1, high: 3, step: 0}}", "step > 0"),
    ("{a: {low: 1, high: 3, step: '1'}}", "step=1: must be a number"), ("{a: {low: .inf, high: 3}}", "low=inf"),
    ("{a: {low: true, high: 3}}", "low=True"), ("{a: {low: null, high: 3}}", "low=None"),
    ("{a: {low: 1, high: 3, log: 'on'}}", "log=on"), ("{a: [[1, 2]]}", "cannot be searched"), ("{a: []}", "list of values"),
    ("{graph: [complete, null]}", "graph=null: no option"), ("{a: {low: 0.1, high: 3.0, step: 0.1, log: true}}", "log"),
    ("{a: [0]}, seed: 1e3", "seed=1000.0"), ("{a: [0]}, metric: [x]", "search.metric"),
])  # fmt: skip
def test_a_space_that_cannot_be_searched(space, message, tmp_path):
    pytest.importorskip("optuna")
    with pytest.raises(UserError, match=re.escape(message)) as error:
        search._checked(read_sweep(question(tmp_path, f"search: {{space: {space}}}")))
    assert "\n" not in str(error.value)


def test_whole_bounds_with_a_fraction_as_step_are_searched_in_fractions():
    optuna = pytest.importorskip("optuna")
    assert isinstance(search._distribution({"low": 1, "high": 3, "step": 0.5}), optuna.distributions.FloatDistribution)
    assert isinstance(search._distribution({"low": 1, "high": 9, "step": 2}), optuna.distributions.IntDistribution)


def test_another_space_under_the_same_name_and_a_trial_that_hydra_refuses(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, going = optuna.create_study(), {}
    trial = search._next(study, "q", {"data": ["nosuch"]})
    search._start(study, going, ["name=q", f"runs={tmp_path}"], trial)
    assert not going and study.get_trials()[0].state.name == "FAIL"
    with pytest.raises(UserError, match="q: search.space: not the one of the study"):
        search._next(study, "q", {"data": ["scenes"]})


@pytest.mark.parametrize("value", ["größe", "写真", "it's", 'say "x"', "a\\b", "a\\", "\\'", "~/x", "a,b", "${x}", " x "])
def test_text_is_quoted_as_hydra_reads_it(value):
    override = f"name={hydra_value(value)}"
    assert parse_overrides([override])[0].value() == value and unquoted_value(override) == value
    assert [unquoted_value(member["name"]) for member in combinations([f"{override},other"])] == [value, "other"]


def test_one_refused_option_among_several():
    for given in ("graph=complete,null", "graph=true,complete", "graph=null"):
        with pytest.raises(UserError, match="no option of the group conf/graph/"):
            as_hydra_override(given)
    assert (
        as_hydra_override("graph=complete,none") == "graph=complete,none"
        and as_hydra_override("seed=1,null") == "seed=1,null"
    )


@pytest.mark.long
def test_a_sweep_of_any_name_for_hydras_own_multirun(checkout):
    (checkout / "sweeps" / "odd.yaml").write_text("name: größe, 50% it's\ngrid: {seed: [0, 4]}\n")
    assert any("größe" in given for given in expanded([f"+sweep={checkout}/sweeps/odd.yaml"]))
    over = sweep(checkout, "submit", "sweeps/odd.yaml", "launcher=local", "runs='my, runs'")
    assert over.returncode == 0, over.stderr
    assert len(list((checkout / "my, runs" / "größe, 50% it's").glob("*/metrics.json"))) == 2
    answer = sweep(checkout, "status", "my, runs/größe, 50% it's")
    assert answer.returncode == 0 and "2 done" in answer.stdout, answer.stdout + answer.stderr
