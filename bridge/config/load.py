"""Reading the configuration: the environment over the file over the usual names of the secrets."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bridge.config import file as config_file
from bridge.config.call_flow import DIRECTORY
from bridge.config.config import Config
from bridge.config.file import KeyPath, Problem
from bridge.config.sentences import KEYS, dotted, problem, suggestion
from bridge.config.values import FromEnvironment
from bridge.errors import ConfigError

DEFAULT_PATH = Path("config/bridge.toml")
MAX_SENTENCES = 20

USUAL_NAMES: Mapping[str, tuple[str, str]] = {
    "TWILIO_ACCOUNT_SID": ("twilio", "account_sid"),
    "TWILIO_AUTH_TOKEN": ("twilio", "auth_token"),
    "BASETEN_API_KEY": ("whisper", "api_key"),
    "BRIDGE_WEBHOOK_SECRET": ("webhook", "secret"),
}
"""Environment variables that other tools use for the same secrets: taken where nothing else sets the key."""

PREFIX = "BRIDGE_"


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    `path` None: the file that `$BRIDGE_CONFIG` names, else `config/bridge.toml` if there is one, else
    defaults and environment alone. `BRIDGE_SECTION__KEY` wins over the file. Raises `ConfigError`: one
    line for each problem, with the key, where it was set and what was expected; never with its value.
    """
    environ = os.environ
    if path is None and (named := environ.get("BRIDGE_CONFIG")):
        path = Path(named)
    elif path is None and DEFAULT_PATH.exists():
        path = DEFAULT_PATH
    file = config_file.read(path, environ) if path else config_file.NO_FILE
    usual, usual_names = _usual_secrets(environ, file.values)
    own, own_names = _from_environment(environ)
    variables = usual_names | own_names

    def where(key: KeyPath) -> str:
        for end in range(len(key), 0, -1):
            if key[:end] in variables:
                return f"environment variable {variables[key[:end]]}: "
        return file.where(key)

    values = _merged(_merged(usual, file.values), own)
    config, problems = _validated(values, path.parent if path else Path())
    told = {key for key, _ in file.problems}
    problems = [*file.problems, *(each for each in problems if each[0] not in told)]
    sentences = _unknown_variables(environ)
    sentences += [f"{where(key)}{dotted(key)} {text}" for key, text in problems]
    if config is None or sentences:
        more = len(sentences) - MAX_SENTENCES
        sentences[MAX_SENTENCES:] = [f"and {more} more problems"] if more > 0 else []
        raise ConfigError("\n".join(sentences))
    config._where = lambda key: where(_path(key))  # noqa: SLF001 - load and Config are one noun
    return config


def _validated(values: dict[str, Any], directory: Path) -> tuple[Config | None, list[Problem]]:
    """The configuration, or the problems. pydantic's error holds the values, so it ends here."""
    try:
        return Config.model_validate(values, context={DIRECTORY: directory}), []
    except ValidationError as error:
        return None, [problem(each) for each in error.errors(include_url=False, include_input=False)]


def _merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """`low` with the keys of `high` over it, table by table. What stands where a table belongs stays."""
    merged = dict(low)
    for key, value in high.items():
        below = low.get(key, {})
        if isinstance(value, dict):
            merged[key] = _merged(below, value) if isinstance(below, dict) else below
        else:
            merged[key] = value
    return merged


def _usual_secrets(
    environ: Mapping[str, str], written: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """The secrets that are not `written`, by their usual names, and the variable of each."""
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    for name, (section, key) in USUAL_NAMES.items():
        table = written.get(section, {})
        if environ.get(name) and isinstance(table, dict) and key not in table:
            values.setdefault(section, {})[key] = FromEnvironment(environ[name])
            names[section, key] = name
    return values, names


def _from_environment(environ: Mapping[str, str]) -> tuple[dict[str, Any], dict[KeyPath, str]]:
    """What `BRIDGE_SECTION__KEY` variables set, and the variable of each key."""
    values: dict[str, Any] = {}
    names: dict[KeyPath, str] = {}
    for name in environ:
        key = _key_of(name)
        if key in KEYS:
            table = values
            for section in key[:-1]:
                table = table.setdefault(section, {})
            table[key[-1]] = FromEnvironment(environ[name])
            names[key] = name
    return values, names


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Sentences about variables of the form of a key that are none; others may be the operator's own."""
    sentences: list[str] = []
    for name in sorted(environ):
        key = _key_of(name)
        if len(key) > 1 and key not in KEYS:
            hint = suggestion(key)
            variable = f"; did you mean {PREFIX}{'__'.join(hint).upper()}?" if hint else ""
            sentences.append(f"environment variable {name}: {'.'.join(key)} is not a known key{variable}")
    return sentences


def _key_of(name: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(PREFIX).lower().split("__")) if name.startswith(PREFIX) else ()


def _path(key: str) -> KeyPath:
    """The path that `dotted` wrote as `key`."""
    parts = key.replace("[", ".").replace("]", "").split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)
