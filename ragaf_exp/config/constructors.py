"""Constructor signatures read from source code, so that checking a config imports nothing that it builds.

Importing PyTorch takes seconds, and a sweep is submitted from a login node. Signatures that can't be read this way are
left to an import.
"""

from __future__ import annotations

import ast
import builtins
import types
from functools import cache
from pathlib import Path
from typing import Any

from ragaf_exp.config import limits

ROOT = Path(__file__).resolve().parents[2]
PLAIN = ("int", "float", "str", "bool", "list", "tuple", "dict")  # the types that config keys have
Signature = list[tuple[str, Any, Any]]  # (name, type with its range, default) of parameters that have a default


class Unreadable(Exception):
    """The signature can't be read from the source."""


def read_constructor(target: str) -> Signature:
    """Read the parameters with defaults of the class `target`, given as module.Class. Raises Unreadable."""
    module, _, name = target.rpartition(".")
    return _constructor(module, name)


def read_attribute(target: str, name: str) -> Any:
    """Read an attribute of the class `target`, given as module.Class, that its body or its base's sets to a literal.

    Raises Unreadable.
    """
    module, _, cls = target.rpartition(".")
    node = _definition(module, cls)
    if not isinstance(node, ast.ClassDef):
        raise Unreadable(target)
    for statement in node.body:
        for bound, value in _bound(statement):
            if bound == name and isinstance(value, ast.expr):
                return _value(module, value)
    if not node.bases or not isinstance(node.bases[0], ast.Name):
        raise Unreadable(f"{target}.{name}")
    return read_attribute(".".join(_origin(module, node.bases[0].id)), name)


BARE = (("abc", "ABC"), ("builtins", "object"))  # bases whose constructors take nothing


@cache
def _constructor(module: str, name: str) -> Signature:
    if (module, name) in BARE:
        return []
    cls = _definition(module, name)
    if not isinstance(cls, ast.ClassDef) or cls.decorator_list or cls.keywords:
        raise Unreadable(name)
    init = next((n for n in cls.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is not None:
        return [] if init.decorator_list else _parameters(module, init.args)
    if len(cls.bases) != 1 or not isinstance(cls.bases[0], ast.Name):
        if cls.bases:
            raise Unreadable(name)
        return []
    return _constructor(*_origin(module, cls.bases[0].id))


def _parameters(module: str, arguments: ast.arguments) -> Signature:
    if arguments.vararg or arguments.kwarg:
        raise Unreadable("*")
    names = [*arguments.posonlyargs, *arguments.args]
    defaulted = list(zip(names[len(names) - len(arguments.defaults) :], arguments.defaults, strict=True))
    defaulted += [(n, d) for n, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if d is not None]
    return [(n.arg, _type(n.annotation), _value(module, d)) for n, d in defaulted]


def _type(node: ast.expr | None) -> Any:
    """Evaluate an annotation of plain types."""
    if isinstance(node, ast.Name) and node.id in PLAIN:
        return getattr(builtins, node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "limits":
        return getattr(limits, node.attr)  # a quantity with its range
    if isinstance(node, ast.Constant) and node.value is None:
        return type(None)
    if isinstance(node, ast.Constant) and node.value is Ellipsis:
        return ...
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _type(node.left) | _type(node.right)
    if isinstance(node, ast.Subscript):
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        return types.GenericAlias(_type(node.value), tuple(map(_type, inner)))
    raise Unreadable(ast.dump(node) if node else "no annotation")


def _value(module: str, node: ast.expr) -> Any:
    """Evaluate a literal, or a name that is assigned one."""
    if isinstance(node, ast.Name):
        module, name = _origin(module, node.id)
        definition = _definition(module, name)
        if isinstance(definition, ast.expr):
            return _value(module, definition)
        raise Unreadable(name)
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise Unreadable(ast.dump(node)) from error


def _origin(module: str, name: str) -> tuple[str, str]:
    """Resolve `name` in `module` to the (module, name) that defines it, in this module or one that it imports from."""
    tree = _tree(module)
    if name in tree.imported:
        return tree.imported[name]
    return module, name


def _definition(module: str, name: str) -> ast.AST:
    """Return the class or the assigned value of a name that a module defines exactly once, at its top level."""
    definition = _tree(module).defined.get(name)
    if definition is None:
        raise Unreadable(f"{module}.{name}")
    return definition


class _Module:
    """Names that a module defines or imports at its top level."""

    def __init__(self, tree: ast.Module):
        self.defined: dict[str, ast.AST] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        twice = set()
        for node in tree.body:
            for name, definition in _bound(node):
                twice |= {name} & set(self.defined)
                self.defined[name] = definition
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                self.imported |= {a.asname or a.name: (node.module, a.name) for a in node.names}
        for name in twice:
            del self.defined[name]


def _bound(node: ast.stmt) -> list[tuple[str, ast.AST]]:
    if isinstance(node, ast.ClassDef):
        return [(node.name, node)]
    if isinstance(node, ast.Assign):
        return [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
        return [(node.target.id, node.value)]
    return []


@cache
def _tree(module: str) -> _Module:
    base = ROOT.joinpath(*module.split("."))
    path = base.with_suffix(".py")
    if not module.startswith(("ragaf_exp.", "eval.")) or ".." in module or not path.is_file():
        raise Unreadable(module)
    return _Module(ast.parse(path.read_text()))
