"""How the option table is written: a section is a frozen model, an option one of its fields."""

from __future__ import annotations

import os
from typing import Any, ClassVar, get_args, get_origin

# Looking for plug-ins would read the metadata of every package installed: 1 MiB and some 20 ms in each agent.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.fields import FieldInfo

OWN = "hamgr's own"
SAME = "as Patroni"


class Section(BaseModel):
    """A mapping of the configuration. Unknown keys are sorted out before a model sees them."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True)
    takes_any_key: ClassVar[bool] = False
    env_prefix: ClassVar[str] = ""
    """Where given, every option has an environment variable: this and the key's name."""


def option(
    default: Any,
    meaning: str,
    *,
    origin: str = SAME,
    env: str = "",
    sample: Any = None,
    shown: str | None = None,
    **bounds: Any,
) -> Any:
    """One option: its default (... if it must be given) and what the reference page says of it.

    `origin` compares with Patroni, `env` is its environment variable without HAMGR_ or PATRONI_, `sample` its
    value in the sample file (None: commented out), `shown` the default in words, `bounds` as pydantic's Field.
    """
    extra = {"origin": origin, "env": env, "sample": sample, "shown": shown}
    return Field(default, description=meaning, json_schema_extra=extra, **bounds)


def about(field: FieldInfo) -> dict[str, Any]:
    """What `option` was told beyond type, default and meaning."""
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def variable_of(model: type[Section], key: str) -> str:
    """The environment variable of an option, without HAMGR_ or PATRONI_; empty: it has none."""
    named = about(model.model_fields[key]).get("env")
    return named or (f"{model.env_prefix}{key.upper()}" if model.env_prefix else "")


def choices(field: FieldInfo) -> tuple[Any, ...]:
    """The types that a field takes: members of its union, without None."""
    parts = get_args(field.annotation) or (field.annotation,)
    return tuple(part for part in parts if part is not type(None))


def section_of(field: FieldInfo) -> type[Section] | None:
    """The section that a field holds, None if it is a plain option or a list."""
    return None if get_origin(field.annotation) is tuple else _section_among(field)


def list_section_of(field: FieldInfo) -> type[Section] | None:
    """The section of which a field holds a list, None for any other field."""
    return _section_among(field) if get_origin(field.annotation) is tuple else None


def _section_among(field: FieldInfo) -> type[Section] | None:
    for part in choices(field):
        if isinstance(part, type) and issubclass(part, Section):
            return part
    return None


def is_text(field: FieldInfo) -> bool:
    """True if the option is text that YAML may have read as a number (a name or password of digits)."""
    return any(part in (str, SecretStr) for part in choices(field))
