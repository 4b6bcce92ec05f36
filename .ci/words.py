"""Lint of the project's English: banned words and phrases in docstrings, comments, messages, names and Markdown; and
missing Args sections in the docstrings of public functions with at least three parameters, tests and .ci/ excepted.

    python .ci/words.py [PATH ...]

Prints one line per finding, `path:line: phrase (replacement)`, and exits with 1 where there is any. Without paths it
checks all tracked files but those in QUOTING; a path given is always checked.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PHRASES = {  # regular expression -> what to write instead
    r"(?<!not )found": "returned, detected or the name of the thing; 'not found' is fine",
    r"told|tells": "reported, passed, described",
    r"told apart|tells? .* apart": "distinguished",
    r"beside": "next to",
    r"anew": "again",
    r"in vain": "without effect",
    r"mends?|mended|mending": "fix",
    r"has (?:its|a) say": "contributes",
    r"hangs? on": "depends on",
    r"lets? go": "release",
    r"speaks? of": "describes",
    r"of (?:its|their) own": "separate, its own ...",
    r"(?:is|are) to be had": "is available",
    r"takes a while": "say how long",
    r"(?:by|of) (?:itself|themselves)": "automatically, alone",
    r"nobody|no one": "name the thing that does not happen",
}
BANNED = re.compile(r"\b(?:" + "|".join(f"(?P<p{i}>{phrase})" for i, phrase in enumerate(PHRASES)) + r")\b", re.I)
INSTEAD = list(PHRASES.values())

# A docstring that begins so is a fragment: say what the function does or returns.
OPENING = re.compile(r"(?:What|Who|Whose|Of|The same|Where)\b(?! (?:is|are)\b)")

NAMES = {"found", "told", "tells", "said", "asked", "beside", "mend", "anew", "kept", "seen"}

QUOTING = (".ci/words.py", "tests/packaging/test_words.py")  # they hold the phrases themselves

WITHOUT_ARGS = ("tests/", ".ci/")  # folders whose functions need no Args section: their callers are in the same folder

Text = tuple[int, str]  # first line, prose


def findings(path: Path) -> Iterator[str]:
    """Each finding in one file, as `line: phrase (replacement)`."""
    content = path.read_text(encoding="utf-8")
    for line, text in prose(path, content):
        for match in BANNED.finditer(text):
            instead = INSTEAD[int(str(match.lastgroup)[1:])]
            yield f"{line + text.count(chr(10), 0, match.start())}: {match[0]!r} ({instead})"
    if path.suffix == ".py":
        tree = ast.parse(content)
        yield from (f"{line}: docstring begins with {text.split()[0]!r} (a fragment)"
                    for line, text in docstrings(tree) if OPENING.match(text))  # fmt: skip
        yield from (f"{line}: the name {name!r} (name what it is)" for line, name in names(tree) if name in NAMES)
        if not relative(path).startswith(WITHOUT_ARGS):
            yield from (f"{line}: {name} has no Args section" for line, name in without_args(tree.body))


def relative(path: Path) -> str:
    """The path from the checkout's root; outside the checkout, the path from the root of the file system."""
    path = path.resolve()
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def prose(path: Path, content: str) -> Iterator[Text]:
    """The English in a file: all of Markdown, comments of YAML and the like, comments and strings of Python."""
    if path.suffix == ".md":
        yield 1, re.sub(r"`[^`\n]*`", "", content)
    elif path.suffix == ".py":
        yield from comments(content)
        yield from strings(ast.parse(content))
    else:
        for number, line in enumerate(content.splitlines(), 1):
            yield number, line.partition("#")[2]


def comments(content: str) -> Iterator[Text]:
    """Comments of Python source."""
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def strings(tree: ast.AST) -> Iterator[Text]:
    """Docstrings, and other strings of at least two words: messages, titles and help texts; keys and names are none."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value


def docstrings(tree: ast.AST) -> Iterator[Text]:
    """Docstrings with the line that they begin on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, text


def names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Names that Python source gives: variables, parameters, functions and classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name.strip("_")


def without_args(body: list[ast.stmt], owner: str = "") -> Iterator[tuple[int, str]]:
    """Public functions of at least three parameters without an Args section; a constructor's may be in its class's."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from without_args(node.body, ast.get_docstring(node) or "")
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            text = (ast.get_docstring(node) or "") + (owner if node.name == "__init__" else "")
            if parameters(node.args) >= 3 and "Args:\n" not in text:
                yield node.lineno, node.name


def parameters(arguments: ast.arguments) -> int:
    """Number of parameters, without self and cls."""
    listed = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return sum(one is not None and one.arg not in ("self", "cls") for one in listed)


def tracked() -> list[Path]:
    """Files that the check covers without arguments."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md", "*.yaml", "*.cfg"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in names if name not in QUOTING and (ROOT / name).exists()]


def files_of(arguments: list[str]) -> list[Path]:
    """Files named on the command line, those of folders included."""
    paths = map(Path, arguments)
    return [file for path in paths for file in (sorted(path.rglob("*.*")) if path.is_dir() else [path])
            if file.suffix in (".py", ".md", ".yaml", ".cfg")]  # fmt: skip


def main(arguments: list[str]) -> int:
    """Check the files; the exit status."""
    paths = files_of(arguments) if arguments else tracked()
    lines = [f"{os.path.relpath(path)}:{line}" for path in paths for line in findings(path)]
    print(*lines, sep="\n", end="\n" if lines else "")
    return bool(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
