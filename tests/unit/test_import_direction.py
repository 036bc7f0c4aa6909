"""Imports point one way, over the whole source tree, as it is written and not as it happens to be run."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]
MAY_IMPORT = {
    "schemas": set(),
    "wal": set(),
    "retention": {"schemas"},
    "recorder": {"schemas", "wal", "retention"},
    "benchmarks": {"recorder", "schemas", "wal", "retention"},
}
"""Which siblings a package may import. `benchmarks` is found by entry point, so `recorder` never imports it."""


def modules(package: str) -> Iterator[tuple[str, pathlib.Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(module: str, path: pathlib.Path, *, everywhere: bool) -> set[str]:
    """Modules named by the import statements of a file: all, or those that run when it is imported."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                above = above[: len(above) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # `from package import module` needs the module; anything else comes from `base` itself.
                full = f"{base}.{alias.name}"
                found.add(full if (ROOT / full.replace(".", "/")).with_suffix(".py").is_file() else base)
        elif not everywhere and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            return
        elif not everywhere and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for child in node.orelse:
                visit(child)
            return
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


@pytest.mark.parametrize("package", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_a_package_imports_only_siblings_below_it(package: str) -> None:
    """recorder → retention → schemas and recorder → wal; `schemas` and `wal` import no sibling, in no function."""
    wrong = [
        f"{module} imports {name}"
        for module, path in modules(package)
        for name in imports(module, path, everywhere=True)
        if (top := name.partition(".")[0]) in {*MAY_IMPORT, "tests"} - MAY_IMPORT[package] - {package}
        and top != package
    ]
    assert wrong == []


def test_nothing_that_records_needs_a_command() -> None:
    """Commands stand on the rest; only `python -m recorder` is one of them."""
    wrong = [
        f"{module} imports {name}"
        for module, path in modules("recorder")
        if not module.startswith("recorder.cli") and module != "recorder.__main__"
        for name in imports(module, path, everywhere=True)
        if name.startswith("recorder.cli")
    ]
    assert wrong == []


@pytest.mark.parametrize("package", [name for name in MAY_IMPORT if (ROOT / name).is_dir()])
def test_no_module_needs_itself_to_be_imported(package: str) -> None:
    """Imports at module level make no cycle within a package."""
    known = dict(modules(package))
    needs = {
        module: {name for name in imports(module, path, everywhere=False) if name in known and name != module}
        for module, path in known.items()
    }
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, "cycle: " + " → ".join([*way[way.index(module) :], module])
        if module not in done:
            for needed in sorted(needs[module]):
                walk(needed, (*way, module))
            done.add(module)

    for module in sorted(needs):
        walk(module, ())
