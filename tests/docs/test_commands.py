"""Every command block of the README and the guide: cheap commands run, long ones are parsed and composed."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.errors import HydraException

from ragaf_exp import __version__
from ragaf_exp.__main__ import COMMANDS
from ragaf_exp.config.command_line import parse_args
from ragaf_exp.config.compose import compose_config
from ragaf_exp.config.grammar import check_flags
from ragaf_exp.core.errors import UserError
from ragaf_exp.run import expanded
from ragaf_exp.sweep.__main__ import COMMANDS as SWEEP
from ragaf_exp.sweep.definition import combinations, read_sweep

pytestmark = pytest.mark.process

sys.path.insert(0, str(Path(__file__).parent))
from blocks import PAGES, ROOT, SHELL, Block, all_blocks, blocks_of, fill  # noqa: E402

BLOCKS = all_blocks()
COMPOSED = {  # command -> its arguments that are not overrides
    "ragaf_exp.run": (), "ragaf_exp.plan": ("card", "out"), "ragaf_exp.plan.flops": (), "ragaf_exp.commands.pace": (),
    "ragaf_exp.audit": ("out", "limit"), "ragaf_exp.commands.cache.features": (), "ragaf_exp.commands.cache": ("workers",),
}  # fmt: skip
SHORTER = {  # command -> what is added, to take seconds
    "ragaf_exp.sample": ["steps=2"], "eval": ["eval.bootstrap=20"], "ragaf_exp.evaluation.controls": ["items=2"],
    "ragaf_exp.commands.region_survey": ["size=64"], "ragaf_exp.commands.extractor_sheet": ["size=64"],
    "eval.damage": ["items=4", "size=64"], "ragaf_exp.commands.size_survey": ["items=2", "sizes=32"],
}  # fmt: skip
SWEEP_ARGUMENTS = {
    "submit": ("launcher", "processes", "wait"), "search": ("launcher", "processes", "wait", "trials"),
    "status": ("format", "out", "live"), "retry": ("launcher", "processes", "wait", "code", "setup"),
    "cancel": (), "report": ("out",),
}  # fmt: skip
REFUSED = (AssertionError, ValueError, UserError, HydraException, subprocess.CalledProcessError)
FLAGS = ("-m", "--multirun", "--cfg", "job")


@pytest.fixture(scope="module")
def sandbox(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the commands name."""
    folder = tmp_path_factory.mktemp("commands")
    fill(folder, finished)
    return folder


def composed(arguments: list[str], own: tuple[str, ...] = ()) -> None:
    """Compose and check the first and the last run that these overrides ask for."""
    words = expanded(arguments)
    check_flags(words)
    overrides = [word for word in words if word not in FLAGS and word.partition("=")[0] not in own]
    runs = combinations([word for word in overrides if word != "memory=auto"])
    multirun = bool(set(FLAGS[:2]) & set(words)) or any(w.startswith(("+experiment=", "hydra/launcher=")) for w in words)
    assert multirun or len(runs) == 1, f"several values without -m: {arguments}"
    for run in (runs[0], runs[-1]):
        compose_config(list(run.values()))


def sweep(arguments: list[str]) -> None:
    """Check a sweep's command; the file of submit and search, and its first and last member, are composed."""
    name, target, *rest = arguments
    assert name in SWEEP, name
    own = [word for word in rest if word.partition("=")[0] in SWEEP_ARGUMENTS[name]]
    parse_args(own, dict.fromkeys(SWEEP_ARGUMENTS[name], str))
    others = [word for word in rest if word not in own]
    if name in ("submit", "search"):
        composed(["-m", *read_sweep(target).all_overrides, *others])
    else:
        assert not others, f"unknown arguments {others}"


def execute(module: str, arguments: list[str], cli: Callable) -> None:
    """Run a command in this process."""
    result = importlib.import_module(module)
    if hasattr(result, "__path__"):
        result = importlib.import_module(f"{module}.__main__")
    status, _, err = cli(result.main, *arguments, *SHORTER.get(module, ()))
    assert status == 0, err


def check(words: list[str], cli: Callable) -> None:
    """Run one command of a block, or parse and compose it."""
    if words[0] == "make":
        subprocess.run([*words[:1], "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)
        return
    if words == [".", ".venv/bin/activate"]:
        return
    assert words[:2] == ["python", "-m"], f"mark it <!-- not run: reason -->: {words}"
    module, arguments = words[2], words[3:]
    assert module in (*COMMANDS, "ragaf_exp"), f"no command of this package: {module}"
    if module == "ragaf_exp.sweep":
        sweep(arguments)
    elif module == "ragaf_exp.commands.cache" and arguments[0] == "warm":
        composed(arguments[1:], COMPOSED[module])
    elif module in COMPOSED and module != "ragaf_exp.commands.cache":
        composed(arguments, COMPOSED[module])
    elif module != "ragaf_exp.bench":
        execute(module, arguments, cli)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("block", [pytest.param(b, id=b.where) for b in BLOCKS if b.language in SHELL])
def test_command_blocks(block, cli, sandbox, monkeypatch):
    commands = block.commands()
    assert commands, "an empty block"
    if block.skipped:
        pytest.skip("marked as not run")
    monkeypatch.chdir(sandbox)
    for words in commands:
        check(words, cli)


def test_no_command_hides_in_a_block_of_another_language():
    for block in BLOCKS:
        lines = block.text.splitlines() if block.language not in (*SHELL, "python", "yaml") else []
        assert not any(line.startswith(("python ", "make ", "pip ", "git ")) for line in lines), block.where


def test_every_page_is_looked_at():
    assert len(PAGES) > 15 and sum(block.language in SHELL for block in BLOCKS) > 25


@pytest.mark.parametrize("text", [
    "python -m ragaf_exp.run 'name=a", "python -m ragaf_exp.run graph=knot", "python -m ragaf_exp.run graf.k=3",
    "python -m ragaf_exp.run seed=0,1", "python -m ragaf_exp.survey", "python -m ragaf_exp.sweep submit sweeps/no.yaml",
    "python -m ragaf_exp.sweep submit sweeps/fusion.yaml fusion=molten", "python -m ragaf_exp.sweep sumbit fusion",
    "make trian", "pip install x",
])  # fmt: skip
def test_a_block_that_does_not_parse_fails(text, cli, sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    with pytest.raises(REFUSED):
        for words in Block("page:1", "bash", text, False).commands():
            check(words, cli)


def test_a_reason_is_needed():
    assert blocks_of("page", "<!-- not run: installs packages -->\n```bash\npip install x\n```\n")[0].skipped
    with pytest.raises(ValueError, match="page:2: <!-- not run: --> is not"):
        blocks_of("page", "<!-- not run: -->\n```bash\npip install x\n```\n")


def test_links_lead_to_files_and_headings():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            name, _, anchor = target.partition("#")
            path = page.parent / name if name else page
            assert path.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in anchors(path), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_page_is_in_the_site():
    listed = (ROOT / "mkdocs.yml").read_text()
    assert not [p for p in (ROOT / "docs").rglob("*.md") if f": {p.relative_to(ROOT / 'docs')}\n" not in listed]


def test_the_version_is_cited_and_in_the_changelog():
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__} (" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().split()) <= 900
