"""Sections of a configuration: frozen dataclasses read strictly from JSON values, and checks of their fields."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar

from dmcodec.errors import ConfigError

S = TypeVar("S")


def build(section: type[S], values: Any, where: str) -> S:
    """Build a section, a dataclass, from a JSON object.

    Args:
        section: the dataclass.
        values: of JSON.
        where: name of the section in errors, with a dot at the end.

    Raises:
        ConfigError: a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, dict):
        raise ConfigError(f"{where or 'the configuration'} must be a JSON object, not {values!r}")
    hints = typing.get_type_hints(section)
    unknown = [key for key in values if key not in hints]
    if unknown:
        raise ConfigError(f"unknown key {where}{unknown[0]}; known: {', '.join(hints)}")
    missing = [field.name for field in dataclasses.fields(typing.cast(Any, section)) if _is_missing(field, values)]
    if missing:
        raise ConfigError(f"missing key {where}{missing[0]}")
    return section(**{key: _value(hints[key], value, f"{where}{key}") for key, value in values.items()})


def _is_missing(field: dataclasses.Field[Any], values: Any) -> bool:
    without_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    return without_default and field.name not in values


def _value(hint: Any, value: Any, name: str) -> Any:
    """Return a JSON value as the type `hint`: a section, a tuple, a number, a string, or one of these or None."""
    if typing.get_origin(hint) is types.UnionType:
        return None if value is None else _value(typing.get_args(hint)[0], value, name)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        item = typing.get_args(hint)[0]
        return tuple(_value(item, one, f"{name}[{i}]") for i, one in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(Any, hint), value, f"{name}.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be {hint.__name__}, not {value!r}")
    return value


def check_positive(section: Any, *names: str) -> None:
    """Raise ConfigError where one of the fields `names` is not a finite number above 0."""
    for name in names:
        if not 0 < getattr(section, name) < float("inf"):
            raise ConfigError(f"training configuration: {name} must be above 0, not {getattr(section, name)!r}")


def check_not_negative(section: Any, *names: str) -> None:
    """Raise ConfigError where one of the fields `names` is not a finite number of at least 0."""
    for name in names:
        if not 0 <= getattr(section, name) < float("inf"):
            raise ConfigError(f"training configuration: {name} must not be negative, not {getattr(section, name)!r}")
