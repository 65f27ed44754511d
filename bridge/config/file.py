"""A configuration file: read with a bound, its `${NAME}` replaced, and the line of each key known."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.config.values import FromEnvironment
from bridge.errors import ConfigError

MAX_BYTES = 1_000_000
"""Far above any configuration; anything larger was meant for something else."""

MAX_DOTS = 1_000
"""In one line. tomllib's memory grows with the square of a dotted key's parts: 1 MB of them take all there is."""

KeyPath = tuple[str | int, ...]
"""`("numbers", 0, "then")`: the keys and list places that lead to a value."""

Problem = tuple[KeyPath, str]
"""What is wrong, and with which key."""

_VARIABLE = re.compile(r"\$\{(\w*)(\}?)")
_AT_LINE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)")
_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_KEY = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What one file says. `lines` maps the path of a key or table to its first line, from 1."""

    name: str
    values: dict[str, Any]
    lines: Mapping[KeyPath, int]
    problems: tuple[Problem, ...]

    def where(self, path: KeyPath) -> str:
        """`NAME line N: `, with the nearest table's line if the key itself is not there."""
        for end in range(len(path), 0, -1):
            if line := self.lines.get(path[:end]):
                return f"{self.name} line {line}: "
        return f"{self.name}: " if self.name else ""


NO_FILE = ConfigFile(name="", values={}, lines={}, problems=())


def read(path: Path, environ: Mapping[str, str]) -> ConfigFile:
    """Read and parse `path`. Raises `ConfigError` if it cannot be read or is not TOML.

    A missing variable is not raised but kept in `problems`, to be told together with other problems.
    """
    text = _text(path)
    problems: list[Problem] = []
    try:
        values = {key: _replaced(value, (key,), environ, problems) for key, value in _parsed(text).items()}
    except RecursionError:
        raise ConfigError(f"{path}: tables and lists are nested too deeply") from None
    except ValueError as error:
        raise ConfigError(_not_toml(path, str(error))) from None
    return ConfigFile(str(path), values, dict(_lines(text)), tuple(problems))


def _text(path: Path) -> str:
    try:
        if not path.is_file():
            missing = "is not a regular file" if path.exists() else "does not exist"
            raise ConfigError(f"{path}: the configuration file {missing}")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or "not a usable file name"
        raise ConfigError(f"{str(path)!r}: the configuration file cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: the configuration file is larger than {MAX_BYTES} bytes")
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ConfigError(f"{path} line 1: starts with a byte order mark: save the file as UTF-8 without one")
    if not content.strip():
        raise ConfigError(f"{path}: the configuration file is empty")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path} line {line}: is not UTF-8: save the file in that encoding") from None


def _parsed(text: str) -> dict[str, Any]:
    if any(line.count(".") > MAX_DOTS for line in text.splitlines()):
        raise RecursionError
    return tomllib.loads(text)


def _not_toml(path: Path, message: str) -> str:
    """One sentence of tomllib's message, whose texts quote no values."""
    found = _AT_LINE.search(message)
    line = f" line {found[1]}" if found and found[1] else ""
    reason = _AT_LINE.sub("", message)
    if "overwrite" in reason or "twice" in reason:
        reason = "this key or table is there already"
    elif not found:
        reason = "a value is out of range"
    return f"{path}{line}: is not valid TOML: {reason}"


def _replaced(value: Any, path: KeyPath, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    """`value` with each `${NAME}` in its texts replaced."""
    if isinstance(value, dict):
        return {key: _replaced(item, (*path, key), environ, problems) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, (*path, at), environ, problems) for at, item in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value

    def variable(found: re.Match[str]) -> str:
        if not found[1] or not found[2]:
            problems.append((path, "has a ${ without a name and } behind it"))
        elif found[1] not in environ:
            problems.append((path, f"needs the environment variable {found[1]}, which is not set"))
        return environ.get(found[1], "")

    return FromEnvironment(_VARIABLE.sub(variable, value))


def _lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Path and line of each table header and key, last first, so that a mapping keeps the first.

    A small scan and no parser: keys of inline tables are not found, their table is.
    """
    found: list[tuple[KeyPath, int]] = []
    table: KeyPath = ()
    entries: dict[KeyPath, int] = {}
    quotes = ""  # the delimiter of the multi-line text that we are in
    for number, line in enumerate(text.splitlines(), 1):
        if quotes:
            quotes = "" if line.count(quotes) % 2 else quotes
            continue
        if header := _HEADER.match(line):
            table = _names(header[2])
            if header[1] == "[[":
                entries[table] = entries.get(table, -1) + 1
                found.append((table, number))
                table = (*table, entries[table])
            else:
                table = _inside(table, entries)
            found.append((table, number))
        elif key := _KEY.match(line):
            found.append(((*table, *_names(key[1])), number))
            quotes = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
    return reversed(found)


def _names(dotted: str) -> KeyPath:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _inside(table: KeyPath, entries: Mapping[KeyPath, int]) -> KeyPath:
    """`[numbers.vad]` belongs to the `[[numbers]]` entry above it."""
    for end in range(len(table), 0, -1):
        if table[:end] in entries:
            return (*table[:end], entries[table[:end]], *table[end:])
    return table
