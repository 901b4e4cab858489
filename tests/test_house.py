"""The house holds: who may import whom (DESIGN.md 4), and what every file keeps to (STYLE.md)."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "hamgr"
MAX_LINES = 400
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}

MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"cli"},
    "core": set(),
    "settings": {"core"},
    "dcs": {"core"},
    "postgres": {"core"},
    "guard": set(),
    "api": {"core"},
    "cli": {"core", "settings", "dcs"},
    "routing": {"core"},
    "agent": {"core", "settings", "dcs", "postgres", "guard", "api", "routing"},
    "drill": set(),
    "fleet": {"core", "settings", "dcs", "postgres", "guard", "agent", "drill"},
    "bench": {"drill"},
    "sim": {"core", "settings"},
    "version": set(),
}
"""Package -> other packages of hamgr that it may import. `__main__` calls commands by name and imports none of them."""

PURE = {
    "__future__",
    "collections",
    "collections.abc",
    "dataclasses",
    "datetime",
    "enum",
    "functools",
    "itertools",
    "math",
    "re",
    "typing",
}
"""Standard modules that core may use. datetime only to write an instant as text: see the test on clocks."""

CLOCKS = {"now", "utcnow", "today", "time", "monotonic", "perf_counter"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The package of hamgr that a file belongs to; the module's name for files at the top."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            yield node.module or "", node.lineno


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_keep_to_the_table(path: Path) -> None:
    mine = room(path)
    assert mine in MAY_IMPORT, f"{mine} is not in the table of DESIGN.md 4"
    wrong = []
    for name, line in imports(path):
        parts = name.split(".")
        if parts[0] == "hamgr" and len(parts) > 1 and parts[1] not in {mine, "version", *MAY_IMPORT[mine]}:
            wrong.append(f"{name_of(path)}:{line} imports {name}")
    assert not wrong


@pytest.mark.parametrize("path", [p for p in sources() if room(p) == "core"], ids=name_of)
def test_core_is_pure(path: Path) -> None:
    wrong = [f"{name_of(path)}:{line} imports {name}" for name, line in imports(path) if not _is_pure(name)]
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
            wrong.append(f"{name_of(path)}:{node.lineno} reads a clock")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"open", "print"}:
            wrong.append(f"{name_of(path)}:{node.lineno} does I/O")
    assert not wrong


def _is_pure(name: str) -> bool:
    return name in PURE or name == "hamgr.core" or name.startswith("hamgr.core.")


@pytest.mark.parametrize("path", [p for p in sources() if room(p) == "guard"], ids=name_of)
def test_guard_needs_the_standard_library_only(path: Path) -> None:
    wrong = [name for name, _ in imports(path) if name.split(".")[0] not in {*sys.stdlib_module_names, "hamgr"}]
    assert not wrong


@pytest.mark.parametrize("path", sources(), ids=name_of)
def test_imports_stand_at_the_top(path: Path) -> None:
    wrong = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = [each for each in ast.walk(node) if isinstance(each, ast.Import | ast.ImportFrom)]
            wrong += [f"{name_of(path)}:{each.lineno}" for each in inner]
        if isinstance(node, ast.Name) and node.id == "TYPE_CHECKING":
            wrong.append(f"{name_of(path)}:{node.lineno} TYPE_CHECKING")
    assert not wrong


def test_no_import_cycle() -> None:
    graph = {_module(path): {name for name, _ in imports(path)} for path in sources()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, f"import cycle: {' -> '.join((*above[above.index(module) :], module))}"
        if module in done:
            return
        for other in graph[module] & graph.keys():
            visit(other, (*above, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def _module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def test_every_room_has_a_name_of_its_own() -> None:
    wrong = [name_of(path) for path in sources() if {path.stem, path.parent.name} & FORBIDDEN_NAMES]
    assert not wrong


def test_no_file_outgrows_its_room() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in sources()}
    assert not {name: lines for name, lines in lengths.items() if lines > MAX_LINES}


def test_exceptions_are_caught_by_name() -> None:
    """At most one place may catch everything: the last line of defence of a process."""
    places = []
    for path in sources():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node.type) and not _raises_again(node):
                places.append(f"{name_of(path)}:{node.lineno}")
    assert len(places) <= 1, places


def _raises_again(handler: ast.ExceptHandler) -> bool:
    """It cleans up and lets the exception go on."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def _catches_all(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(isinstance(name, ast.Name) and name.id in {"Exception", "BaseException"} for name in names)
