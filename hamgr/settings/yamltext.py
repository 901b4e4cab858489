"""YAML as hamgr reads it, wherever it comes from: an error where it is broken, or would grow beyond all bounds."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000
"""Scalars, lists and mappings of a document, those counted again that an alias repeats."""
DEEPEST = 50


class BadYaml(Exception):
    """The text is no YAML that can be used. `line` and `column` count from 1; 0: the place is not known."""

    def __init__(self, reason: str, mark: yaml.Mark | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line, self.column = (mark.line + 1, mark.column + 1) if mark is not None else (0, 0)

    @property
    def place(self) -> str:
        """`line 3, column 5`; empty where it is not known."""
        return f"line {self.line}, column {self.column}" if self.line else ""


def read_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The document as nodes and as values; None for an empty one. Raises BadYaml, which quotes no value."""
    try:
        return _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadYaml(error.problem or error.context or "broken", mark) from None
    except yaml.reader.ReaderError as error:
        raise BadYaml(f"character {error.position + 1} is not allowed") from None
    except RecursionError:
        raise BadYaml(f"this is nested more than {DEEPEST} deep") from None


def yaml_value(text: str) -> Any:
    """The values alone. Raises BadYaml."""
    return read_yaml(text)[1]


def _read(text: str) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _measured(root, {})
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


class _Loader(yaml.SafeLoader):
    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
            # What PyYAML lets through: a 13th month, a number of 5000 digits, `!!int ''`, `!!bool maybe`.
            kind = node.tag.rpartition(":")[2]
            raise yaml.MarkedYAMLError(problem=f"this is no {kind}", problem_mark=node.start_mark) from error


def _measured(node: yaml.Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Number of nodes and depth with all aliases followed, each counted by what it repeats: a few lines can stand for
    billions, which whoever walks through the values would have to visit. Raises MarkedYAMLError.
    """
    size, depth = known.setdefault(id(node), (0, 0))
    if size:
        return size, depth
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node)
    size, depth = 1, 1
    for inner in _inner(node):
        if known.get(id(inner)) == (0, 0):
            raise yaml.MarkedYAMLError(problem="an alias repeats what it is part of", problem_mark=node.start_mark)
        inner_size, inner_depth = _measured(inner, known)
        size, depth = size + inner_size, max(depth, inner_depth + 1)
    if size > MOST_NODES:
        problem = f"with its aliases this is more than {MOST_NODES} values"
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
    if depth > DEEPEST:
        raise yaml.MarkedYAMLError(problem=f"this is nested more than {DEEPEST} deep", problem_mark=node.start_mark)
    known[id(node)] = size, depth
    return size, depth


def _refuse_duplicates(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else ""
        if name and name != "<<" and name in seen:
            raise yaml.MarkedYAMLError(problem=f"the key {name} stands twice", problem_mark=key.start_mark)
        seen.add(name)


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [each for pair in node.value for each in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []
