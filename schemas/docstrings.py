"""The text under each field of a row class: meaning, unit, source. Read from its source code, where that is there."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache


def field_docs(cls: type) -> dict[str, str]:
    """Field name to the string literal under it, over the class and its bases; empty where there is no source."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        docs.update(_class_docs(base.__module__).get(base.__qualname__, {}))
    return docs


@cache
def _class_docs(module_name: str) -> dict[str, dict[str, str]]:
    """Qualified class name to its fields' texts, over one module."""
    module = sys.modules.get(module_name)
    if module is None or module_name == "builtins":
        return {}
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, dict[str, str]] = {}
    _collect(tree, "", found)
    return found


def _collect(node: ast.AST, prefix: str, found: dict[str, dict[str, str]]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            name = prefix + child.name
            found[name] = _fields(child)
            _collect(child, f"{name}.", found)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            _collect(child, f"{prefix}{child.name}.<locals>.", found)


def _fields(node: ast.ClassDef) -> dict[str, str]:
    docs = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            docs[field.target.id] = " ".join(text.value.value.split())
    return docs
