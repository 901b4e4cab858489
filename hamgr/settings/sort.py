"""Sorting what was written against the option table: known keys, Patroni's others, strangers, wrong values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from hamgr.settings.patroni import custom_names, patroni_hint
from hamgr.settings.problem import Problem, join, nearest, warning
from hamgr.settings.section import Section, about, is_text, list_section_of, section_of

AnySection = TypeVar("AnySection", bound=Section)
NOT_YET = "Patroni knows this key, hamgr does not (yet): it has no effect"


def sort_out(
    raw: Mapping[Any, Any],
    model: type[Section],
    at: str,
    patroni_at: str,
    written: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    """Keep what `model` knows of `raw`; a problem for each other key.

    `patroni_at` is the section's path in the table of Patroni's keys (`dcs` for dynamic configuration);
    `written` holds, by path, how a number stood in the file, for options that are text.
    """
    known: dict[str, Any] = {}
    problems: list[Problem] = []
    custom = custom_names(raw, patroni_at)
    for key, value in raw.items():
        path = join(at, str(key))
        field = model.model_fields.get(key) if isinstance(key, str) else None
        if field is None:
            if model.takes_any_key and isinstance(key, str):
                known[key] = value
            else:
                problems.append(_stranger(path, key, model, patroni_at, custom))
            continue
        if value is not None:
            known[key], found = _sorted_value(value, field, path, join(patroni_at, key), written or {})
            problems += found
    return known, tuple(problems)


def _sorted_value(
    value: Any, field: FieldInfo, path: str, patroni_at: str, written: Mapping[str, str]
) -> tuple[Any, tuple[Problem, ...]]:
    inner = section_of(field)
    item = list_section_of(field)
    if inner is not None:
        return _sorted_section(value, inner, path, patroni_at, written)
    if item is not None and isinstance(value, list):
        parts = [_sorted_section(each, item, f"{path}.{at}", patroni_at, written) for at, each in enumerate(value)]
        return [part[0] for part in parts], tuple(problem for part in parts for problem in part[1])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (_as_written(value, path, written) if is_number and is_text(field) else value), ()


def _as_written(number: float, path: str, written: Mapping[str, str]) -> float | str:
    if path in written:
        return written[path]
    try:
        return str(number)
    except ValueError:
        # Of more digits than Python writes: no text that anybody meant.
        return number


def _sorted_section(
    value: Any, model: type[Section], path: str, patroni_at: str, written: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[Problem, ...]]:
    if isinstance(value, Mapping):
        return sort_out(value, model, path, patroni_at, written)
    return {}, (Problem(path, "is not a mapping of options"),)


def _stranger(path: str, key: object, model: type[Section], patroni_at: str, custom: frozenset[str]) -> Problem:
    if not isinstance(key, str):
        return Problem(path, f"YAML reads this key as a {type(key).__name__}", "write it in quotes")
    if key in custom:
        return warning(path, NOT_YET, "only initdb and pg_basebackup make servers")
    hint = patroni_hint(patroni_at, key)
    if hint is not None:
        return warning(path, NOT_YET, hint)
    return Problem(path, "unknown key", nearest(key, model.model_fields))


def fit(model: type[AnySection], known: Mapping[str, Any], at: str) -> tuple[AnySection, tuple[Problem, ...]]:
    """The model of `known` with wrong values left out, and a problem for each of those.

    For models whose options all have defaults. A wrong value in a section costs that value, not the section.
    """
    try:
        return model.model_validate(known), ()
    except ValidationError as error:
        problems = value_problems(error, model, at)
        rest = dict(known)
        for detail in error.errors(include_url=False, include_input=False, include_context=False):
            rest = _without(rest, tuple(detail["loc"]), model)
        return model.model_validate(rest), problems


def _without(known: Mapping[str, Any], loc: tuple[int | str, ...], model: type[Section]) -> dict[str, Any]:
    key = str(loc[0])
    rest = dict(known)
    inner = section_of(model.model_fields[key])
    if inner is not None and len(loc) > 1 and isinstance(rest.get(key), Mapping):
        rest[key] = _without(rest[key], loc[1:], inner)
    else:
        rest.pop(key, None)
    return rest


def value_problems(error: ValidationError, model: type[Section], at: str) -> tuple[Problem, ...]:
    """pydantic's findings in the words of this package, once per key."""
    found: dict[str, Problem] = {}
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        problem = _value_problem(detail, model, at)
        found.setdefault(problem.path, problem)
    return tuple(found.values())


def _value_problem(detail: ErrorDetails, model: type[Section], at: str) -> Problem:
    path = join(at, *(str(part) for part in detail["loc"]))
    if detail["type"] == "missing":
        return Problem(path, "is missing", _how_to_write(detail["loc"], model))
    text = detail["msg"].removeprefix("Value error, ").replace("Input should", "should", 1)
    return Problem(path, text)


def _how_to_write(loc: tuple[int | str, ...], model: type[Section]) -> str:
    """The sample value of an option, as a hint where it is missing."""
    current: type[Section] | None = model
    for part in loc[:-1]:
        field = current.model_fields.get(str(part)) if current is not None else None
        current = section_of(field) if field is not None else None
    last = current.model_fields.get(str(loc[-1])) if current is not None else None
    sample = about(last).get("sample") if last is not None else None
    return f"write for example {loc[-1]}: {sample}" if sample is not None else ""
