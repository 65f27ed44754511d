"""Problems of a configuration in one sentence each, without the value that caused them."""

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from bridge.config.config import Config
from bridge.config.file import KeyPath, Problem
from bridge.config.sections import NumberConfig

_EXPECTED: Mapping[str, str] = {
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "int_type": "must be a whole number",
    "less_than_equal": "must be at most {le}",
    "list_type": "must be a list: [...]",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a table",
    "string_type": "must be a text in quotes",
    "tuple_type": "must be a text in quotes or a list of them",
}
"""pydantic's error types, in words for who wrote the file."""


def _keys(model: type[BaseModel], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section:
            yield from _keys(section, (*above, name))
        else:
            yield (*above, name)


def _section(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel) and kind is not NumberConfig:
            return kind
    return None


KEYS = frozenset(_keys(Config))
"""Every key of the sections: `("whisper", "vad", "threshold")`. `numbers` is one key, a list."""

_NUMBER_KEYS = frozenset(_keys(NumberConfig))
_TABLES = frozenset(key[:end] for key in KEYS for end in range(1, len(key))) | {("numbers",)}


def problem(error: ErrorDetails) -> Problem:
    """The key and the sentence of one of pydantic's errors."""
    context: Mapping[str, Any] = error.get("ctx", {})
    path: KeyPath = error["loc"]
    kind = error["type"]
    if kind == "bridge":  # raised by a section, which names the key inside it
        inner = (int(part) if part.isdigit() else part for part in context["key"].split("."))
        return (*path, *inner), error["msg"]
    if kind == "value_error":
        return path, str(context["error"])
    if kind == "extra_forbidden":
        return path, _unknown(path)
    if path == ("numbers",):
        return path, "must be written as [[numbers]], one table for each number"
    return path, _EXPECTED.get(kind, "has a value that cannot be used").format_map(context)


def _unknown(path: KeyPath) -> str:
    if len(path) > 1 and isinstance(path[1], int):  # numbers[0].lnaguage
        key = tuple(str(part) for part in path[2:])
        near = _nearest(key, _NUMBER_KEYS)
        hint = dotted((*path[:2], *near)) if near else ""
    else:
        key = tuple(str(part) for part in path)
        near = suggestion(key) or _nearest(key, _TABLES)
        hint = dotted(near) if near else ""
    return "is not a known key" + (f"; did you mean {hint}?" if hint else "")


def suggestion(key: tuple[str, ...]) -> tuple[str, ...] | None:
    """The known key that was probably meant: the same name in another section, or the nearest spelling."""
    named = {".".join(known): known for known in sorted(KEYS) if known[-1] == key[-1]}
    near = difflib.get_close_matches(".".join(key), named, 1, cutoff=0)
    return named[near[0]] if near else _nearest(key, KEYS)


def _nearest(key: tuple[str, ...], known: frozenset[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The nearest spelling; a key of the same table is nearer than any other."""
    siblings = {each[-1]: each for each in known if each[:-1] == key[:-1]}
    if near := difflib.get_close_matches(key[-1], siblings, 1):
        return siblings[near[0]]
    spelled = {".".join(each): each for each in known if len(each) >= len(key)}
    if near := difflib.get_close_matches(".".join(key), spelled, 1, cutoff=0.8):
        return spelled[near[0]]
    return None


def dotted(path: KeyPath) -> str:
    """`numbers[0].then`: the path as a person writes it."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
