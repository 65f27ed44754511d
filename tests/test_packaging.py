"""What the package says about itself, and the house rules that a machine can check."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import bridge

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT) for path in (ROOT / "bridge").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

EXTRAS = (
    "asyncpg",
    "ctranslate2",
    "faster_whisper",
    "phonenumbers",
    "pocketsphinx",
    "sounddevice",
    "stdnum",
)

TESTED_ELSEWHERE = {
    "bridge/__main__.py": "cli/test_transcribe.py",
    "bridge/outbox/calls.py": "outbox/test_outbox.py",
    "bridge/outbox/expiry.py": "outbox/test_operations.py",
    "bridge/outbox/lanes.py": "outbox/test_outbox.py",
    "bridge/outbox/postgresql/calls.py": "outbox/test_outbox.py",
    "bridge/outbox/postgresql/lanes.py": "outbox/test_outbox.py",
    "bridge/outbox/postgresql/numbers.py": "outbox/test_numbers.py",
    "bridge/outbox/postgresql/operations.py": "outbox/test_operations.py",
    "bridge/outbox/postgresql/owners.py": "outbox/test_owners.py",
    "bridge/outbox/postgresql/retention.py": "outbox/test_operations.py",
    "bridge/twilio/feed.py": "twilio/test_hostile.py",
    "bridge/local/speech/make.py": "local/speech/test_speech.py",
    "bridge/local/whisper/connection.py": "local/whisper/test_server.py",
    "bridge/local/whisper/message.py": "local/whisper/test_session.py",
    "bridge/local/whisper/sphinx_process.py": "local/whisper/test_sphinx.py",
    "bridge/local/whisper/sphinx_worker.py": "local/whisper/test_sphinx.py",
    "bridge/local/whisper/wire.py": "local/whisper/test_sphinx.py",
    "bridge/local/twilio/account.py": "local/twilio/test_call.py",
    "bridge/local/twilio/handler.py": "local/twilio/rest/test_calls.py",
    "bridge/local/twilio/message.py": "local/twilio/test_call.py",
    "bridge/local/twilio/report.py": "local/twilio/test_call.py",
    "bridge/local/twilio/rest/date.py": "local/twilio/rest/test_calls.py",
    "bridge/local/twilio/rest/refusal.py": "local/twilio/rest/test_api.py",
    "bridge/local/twilio/stream.py": "local/twilio/test_call.py",
    "bridge/local/twilio/streams.py": "local/twilio/rest/test_streams.py",
    "bridge/local/twilio/webhook.py": "local/twilio/test_call.py",
}
"""Modules whose tests are not beside them, and where they are."""


def test_metadata() -> None:
    about = metadata.metadata("whisper-bridge")
    assert about["Version"] == bridge.__version__
    assert about["Requires-Python"] == ">=3.11"
    assert about["License-Expression"] == "Apache-2.0"
    (command,) = metadata.entry_points(group="console_scripts", name="whisper-bridge")
    assert command.value == "bridge.cli:main"


def test_the_changelog_knows_this_version() -> None:
    assert re.search(rf"\b{re.escape(bridge.__version__)}\b", (ROOT / "CHANGELOG.md").read_text())


def test_every_dependency_has_an_exact_version() -> None:
    pinned = set(re.findall(r"^([\w.-]+)==", (ROOT / "deploy" / "constraints.txt").read_text(), re.MULTILINE))
    wanted = (
        PROJECT["dependencies"]
        + PROJECT["optional-dependencies"]["local"]
        + PROJECT["optional-dependencies"]["dev"]
    )
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in wanted}
    assert {_normal(name) for name in names} <= {_normal(name) for name in pinned}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_module_can_be_imported_without_the_extras() -> None:
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"
        f"for name in {names!r}:\n"
        "    if not name.endswith('__main__'):\n"
        "        importlib.import_module(name)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr


def test_help_is_quick() -> None:
    """`--help` imports every command, but not what a command needs when it runs."""
    commands = [f"bridge.cli.{path.stem}" for path in MODULES if path.parts[:2] == ("bridge", "cli")]
    program = (
        f"import importlib, sys\nfor name in {commands!r}: importlib.import_module(name.removesuffix('.__init__'))\n"
        "print(*{'numpy', 'scipy', 'aiohttp', 'twilio', 'pydantic'} & set(sys.modules))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert run.stdout.split() == []


def test_every_module_has_its_tests() -> None:
    missing = [
        f"{path}: no {_tests(path)}"
        for path in MODULES
        if path.parts[1] != "cli" and _has_code(path) and not _tests(path).is_file()
    ]
    assert not missing


def test_the_list_of_exceptions_is_not_longer_than_needed() -> None:
    for name in TESTED_ELSEWHERE:
        assert Path(name) in MODULES
        assert not _beside(Path(name)).exists()


def _tests(path: Path) -> Path:
    elsewhere = TESTED_ELSEWHERE.get(path.as_posix())
    return ROOT / "tests" / elsewhere if elsewhere else _beside(path)


def _beside(path: Path) -> Path:
    noun = path.parent.name if path.stem == "__init__" else path.stem
    return ROOT.joinpath("tests", *path.parts[1:-1], f"test_{noun}.py")


def _has_code(path: Path) -> bool:
    """Whether a module does anything: declarations alone need no tests."""
    functions = (
        node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, _FUNCTIONS)
    )
    return any(not isinstance(statement, ast.Expr) for function in functions for statement in function.body)


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_a_module_is_one_noun() -> None:
    long = [path for path in MODULES if len((ROOT / path).read_text().splitlines()) > 300]
    assert not long
    vague = {"utils", "util", "helpers", "helper", "manager", "base", "common"}
    assert not [path for path in MODULES if vague & {*path.with_suffix("").parts}]


def test_no_file_is_large() -> None:
    large = [path for path in _files() if path.stat().st_size > 1_000_000]
    assert not large


def test_documents_name_files_that_exist() -> None:
    for document in (path for path in _files() if path.suffix == ".md"):
        for name in re.findall(r"`((?:bridge|config|deploy|tests)/[\w./-]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def _files() -> Iterator[Path]:
    """What would be committed: nothing hidden, nothing that was built."""
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            name for name in folders if not name.startswith(".") and name not in {"__pycache__", "dist", "build", "var"}
        ]  # fmt: skip
        yield from (Path(folder, name) for name in names)
