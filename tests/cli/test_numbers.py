"""The command as an operator uses it: beside no bridge, through the one that holds the outbox, and on PostgreSQL."""

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from bridge.cli import numbers
from bridge.errors import BridgeError, ConfigError, UsageError
from bridge.local.twilio.rest import RestApi
from bridge.twilio import rest
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, running
from tests.doubles.exchange import FALLBACK, HANDLER, OURS

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE, TWO = "+15550101", "+15550102"
SHOWN = "https://...@voice.example.com/ivr?..."


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No bridge logs into what the command prints, and no change waits for its turn."""
    monkeypatch.setattr(rest, "WRITES_PER_S", 10_000)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def command(*arguments: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    numbers.register(app)
    texts = ["numbers", *(str(argument) for argument in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, texts)


@dataclass
class Shell:
    """Runs the command with a configuration."""

    api: RestApi
    config: Path

    async def __call__(self, *arguments: object) -> Result:
        return await command(*arguments, "--config", self.config)

    async def good(self, *arguments: object) -> str:
        told = await self(*arguments)
        assert told.exit_code == 0, told.output
        assert told.stderr == ""
        return told.stdout


@asynccontextmanager
async def shell(directory: Path, outbox: str = "") -> AsyncIterator[Shell]:
    async with RestApi(ACCOUNT) as api:
        config = directory / "bridge.toml"
        config.write_text(
            f'[server]\npublic_url = "{PUBLIC_URL}"\n'
            f'[twilio]\naccount_sid = "{ACCOUNT.sid}"\nauth_token = "{ACCOUNT.auth_token}"\n'
            f'api_base_url = "{api.url}"\n'
            f'[outbox]\nurl = "{outbox or f"sqlite://{directory}/outbox"}"\naccept_loss = true\n'
            f'[journal]\npath = "{directory}/journal"\n'
        )
        yield Shell(api, config)


async def test_from_list_over_attach_to_detach(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        assert await sh.good("list") == "The account has no numbers.\n"
        sh.api.numbers.add(ONE, voice_url=HANDLER)
        sh.api.numbers.add(TWO)
        before = sh.api.numbers.snapshot()
        told = await sh.good("attach", ONE, "--dry-run")
        assert told == (
            f"{ONE}: would be attached; its calls go on to {SHOWN}\n"
            f"  voice_url: {SHOWN} -> {OURS}\n  voice_fallback_url: none -> {SHOWN}\n"
        )
        assert sh.api.numbers.snapshot() == before
        assert await sh.good("attach", ONE) == f"{ONE}: attached; its calls go on to {SHOWN}\n"
        assert await sh.good("attach", ONE) == f"{ONE}: is attached already\n"
        head, first, second = (await sh.good("list")).splitlines()
        assert head.split() == ["number", "handled", "by", "then", "attached"]
        assert first.split() == [ONE, "url", OURS, SHOWN, "attached"]
        assert second.split() == [TWO, "nothing"]
        assert await sh.good("detach", ONE, ONE) == f"{ONE}: detached: it is as it was before\n"
        assert sh.api.numbers.snapshot() == before


async def test_json_is_an_array_and_holds_no_secret(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        assert json.loads(await sh.good("list", "--json")) == []
        sid = sh.api.numbers.add(ONE, voice_url=HANDLER)
        assert json.loads(await sh.good("list", "--json")) == [
            {
                "number": ONE,
                "sid": sid,
                "handled_by": "url",
                "where": SHOWN,
                "attached": "no",
                "changed": [],
                "then": "",
            }
        ]


async def test_250_numbers_there_and_back(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        for at in range(250):
            sh.api.numbers.add(f"+1555{at:07}", voice_url=f"https://voice.example.com/{at}")
        before = sh.api.numbers.snapshot()
        told = await sh.good("attach", "--all")
        assert told.splitlines() == [
            f"+1555{at:07}: attached; its calls go on to https://voice.example.com/{at}" for at in range(250)
        ]
        listed = json.loads(await sh.good("list", "--json"))
        assert [each["attached"] for each in listed] == ["yes"] * 250
        assert len((await sh.good("detach", "--all")).splitlines()) == 250
        assert sh.api.numbers.snapshot() == before
        assert await sh.good("detach", "--all") == "There is no such number.\n"


async def test_all_is_what_something_handles(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        sh.api.numbers.add(ONE, voice_url=HANDLER)
        sh.api.numbers.add(TWO)
        assert (await sh.good("attach", "--all")).startswith(f"{ONE}: attached")
        assert sh.api.numbers.of(TWO)["voice_url"] == ""
        assert f"{TWO}: attached; its calls go on to {FALLBACK}\n" in await sh.good(
            "attach", "--all", "--then", FALLBACK
        )


async def test_what_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        sh.api.numbers.add(ONE, trunk_sid="TK" + "1" * 32)
        sh.api.numbers.add(TWO, voice_url=HANDLER)
        told = await sh("attach", ONE, "+15550109", TWO)
        assert told.exit_code == 1
        assert told.stdout == f"{TWO}: attached; its calls go on to {SHOWN}\n"
        first, second = told.stderr.splitlines()
        assert first.startswith(f"whisper-bridge: {ONE}: its calls go to the trunk TK1111")
        assert second == "whisper-bridge: +15550109: the account has no such number"


async def test_a_change_since_needs_force(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        sh.api.numbers.add(ONE, voice_url=HANDLER)
        before = sh.api.numbers.snapshot()
        await sh.good("attach", ONE)
        sh.api.numbers.of(ONE)["voice_url"] = FALLBACK
        assert "attached, but changed since: voice_url\n" in await sh.good("list")
        told = await sh("detach", ONE)
        assert (told.exit_code, told.stdout) == (1, "")
        assert told.stderr == (
            f"whisper-bridge: {ONE}: voice_url was changed since it was attached: "
            "--force puts back what was there before that\n"
        )
        await sh.good("detach", ONE, "--force")
        assert sh.api.numbers.snapshot() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("attach",), "Name the numbers"),
        (("detach",), "Name the numbers"),
        (("attach", ONE, "--all"), "Name the numbers"),
        (("attach", "5550101"), "A number is written with +"),
        (("detach", ONE, "x"), "A number is written with +"),
        (("attach", ONE, "--then", OURS), "leads back to this bridge"),
    ],
)
async def test_what_is_asked_wrongly(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    async with shell(tmp_path) as sh:
        told = await sh(*arguments)
        assert isinstance(told.exception, UsageError)
        assert words in str(told.exception)
        assert not [asked for asked in sh.api.asked if asked.startswith("POST")]


async def test_the_credentials_are_refused_or_missing(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        sh.api.refuse = 401
        told = await sh("list")
        assert isinstance(told.exception, BridgeError)
        assert "refused the credentials (401)" in str(told.exception)
        told = await sh("attach", ONE)
        assert (told.exit_code, told.stdout) == (1, "")
        assert f"{ONE}: Twilio's REST API refused the credentials (401)" in told.stderr
        sh.config.write_text(re.sub("auth_token.*", "", sh.config.read_text()))
        told = await sh("attach", "--all")
        assert isinstance(told.exception, ConfigError)
        assert "set twilio.account_sid and twilio.auth_token" in str(told.exception)


async def test_the_bridge_that_holds_the_outbox_is_asked(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        sections: dict[str, Any] = {
            "server": {"admin_token": TOKEN},
            "twilio": {"api_base_url": sh.api.url},
        }
        async with running(tmp_path, NOWHERE, **sections) as setup:
            told = await sh("list")
            assert isinstance(told.exception, ConfigError)
            assert "is in use by another whisper-bridge" in str(told.exception)
            assert "Or set server.admin_token" in str(told.exception)
            server = f'[server]\nport = {setup.bridge.port}\nadmin_token = "{TOKEN}"'
            sh.config.write_text(sh.config.read_text().replace("[server]", server))
            sh.api.numbers.add(ONE, voice_url=HANDLER)
            before = sh.api.numbers.snapshot()
            assert await sh.good("attach", ONE) == f"{ONE}: attached; its calls go on to {SHOWN}\n"
            assert "attached" in await sh.good("list", "--url", setup.url)
            assert len(await setup.bridge._services.outbox.attached()) == 1
            told = await sh("attach", ONE, "x")
            assert isinstance(told.exception, UsageError)
            assert await sh.good("detach", "--all") == f"{ONE}: detached: it is as it was before\n"
            assert sh.api.numbers.snapshot() == before


async def test_with_postgresql_no_bridge_is_asked(tmp_path: Path, postgres_url: str) -> None:
    async with shell(tmp_path, outbox=postgres_url) as sh:
        sections: dict[str, Any] = {
            "outbox": {"url": postgres_url, "accept_loss": True},
            "journal": {"path": str(tmp_path / "live")},
        }
        async with running(tmp_path, NOWHERE, **sections) as setup:
            sh.api.numbers.add(ONE, voice_url=HANDLER)
            before = sh.api.numbers.snapshot()
            await sh.good("attach", ONE)
            (known,) = await setup.bridge._services.outbox.attached()
            assert (known.number, known.then) == (ONE, HANDLER)
            await sh.good("detach", ONE)
            assert sh.api.numbers.snapshot() == before


async def test_json_is_all_that_stdout_has(tmp_path: Path, postgres_url: str) -> None:
    """The outbox has remarks on such a database; in a process of its own nothing keeps them back."""
    async with shell(tmp_path, outbox=postgres_url) as sh:
        sh.api.numbers.add(ONE, voice_url=HANDLER)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "numbers", "list", "--json", "--config", str(sh.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, wrong = await process.communicate()
        assert [each["number"] for each in json.loads(told)] == [ONE]
        assert (process.returncode, wrong) == (0, b"")


async def test_a_terminal_sees_a_bar_and_a_pipe_does_not(tmp_path: Path) -> None:
    async with shell(tmp_path) as sh:
        for number in (ONE, TWO):
            sh.api.numbers.add(number, voice_url=HANDLER)
        ours, theirs = pty.openpty()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "numbers", "attach", ONE, TWO, "--config", str(sh.config)),
            stdout=asyncio.subprocess.PIPE,
            stderr=theirs,
            env={**os.environ, "COLUMNS": "80", "TERM": "xterm"},
        )
        os.close(theirs)
        told, _ = await process.communicate()
        shown = b""
        while part := await asyncio.to_thread(_read, ours):
            shown += part
        os.close(ours)
        assert process.returncode == 0
        assert told.decode().count("attached; its calls go on to") == 2
        assert b"numbers" in shown
        assert b"100%" in shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal says that nobody is there any more
        return b""
