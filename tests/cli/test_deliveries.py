import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from bridge import events
from bridge.cli import deliveries
from bridge.errors import BridgeError, ConfigError, UsageError
from bridge.local.receiver import Answer
from bridge.outbox.outbox import Outgoing, endpoint_tag
from bridge.webhook import schedule
from tests.doubles.bridge import Setup, running

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE, TWO = "CA" + "1" * 32, "CA" + "2" * 32


NOTHING = "Nothing to replay matches. What was delivered is replayed with --state done.\n"


class Shell:
    """Runs the command against a bridge; `config` is its file."""

    def __init__(self, setup: Setup, config: Path) -> None:
        self.setup = setup
        self.config = config

    async def __call__(self, *arguments: object, typed: str = "") -> Result:
        return await command(*arguments, "--config", self.config, typed=typed)

    async def publish(self, call_sid: str, count: int) -> list[Outgoing]:
        """Events of a call as its publisher stores them."""
        outbox, endpoint = self.setup.bridge._services.outbox, self.setup.receiver.url
        lease = await outbox.own_call(call_sid, "a test", b"")
        stored = []
        for sequence in range(lease.next_sequence, lease.next_sequence + count):
            identity = events.event_id(call_sid, endpoint, sequence, "call.dtmf")
            body = json.dumps({"type": "call.dtmf", "data": {"call_sid": call_sid, "sequence": sequence}})
            stored.append(Outgoing(endpoint, sequence, identity, "call.dtmf", body.encode()))
        await outbox.publish(lease, stored, {})
        return stored

    async def until(self, count: int, *arguments: object) -> None:
        """Wait for so many records."""
        async with asyncio.timeout(20):
            while len(json.loads((await self("list", "--json", *arguments)).stdout)) != count:
                await asyncio.sleep(0.02)


async def command(*arguments: object, typed: str = "") -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    deliveries.register(app)
    texts = ["deliveries", *(str(argument) for argument in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, texts, input=typed)


@asynccontextmanager
async def bridge(directory: Path) -> AsyncIterator[Shell]:
    async with running(directory, NOWHERE, server={"admin_token": TOKEN}) as setup:
        config = directory / "bridge.toml"
        config.write_text(f'[server]\nport = {setup.bridge.port}\nadmin_token = "{TOKEN}"\n')
        yield Shell(setup, config)


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """The bridge, in the same process, would log into what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def hopeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails once is given up."""
    monkeypatch.setattr(schedule, "is_spent", lambda *_, **__: True)


@pytest.mark.usefixtures("hopeless")
async def test_from_a_dead_letter_to_its_delivery_and_to_nothing(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        receiver = shell.setup.receiver
        receiver.default = Answer(503)
        stored = await shell.publish(ONE, 2)
        await shell.until(2, "--state", "dead")

        told = await shell("list", "--state", "dead", "--call", ONE)
        assert told.exit_code == 0, told.output
        head, first, second = told.stdout.strip().splitlines()
        assert head.split() == ["id", "call", "type", "seq", "state", "tries", "last", "age", "next"]
        assert first.split()[:5] == [stored[1].event_id, ONE, "call.dtmf", "2", "dead"]
        assert second.split()[:5] == [stored[0].event_id, ONE, "call.dtmf", "1", "dead"]
        assert "503" in second

        receiver.received.clear()
        receiver.default = Answer()
        told = await shell("replay", "--state", "dead", "--call", ONE)
        assert (told.exit_code, told.stdout) == (0, "Replayed: 2.\n")
        await shell.until(2, "--state", "done")
        assert [(r.webhook_id, r.body) for r in receiver.received] == [(e.event_id, e.body) for e in stored]
        assert all(r.headers["bridge-replay"] == "1" for r in receiver.received)
        assert "done, replay" in (await shell("list")).stdout

        told = await shell("erase", ONE, "--yes")
        assert (told.exit_code, told.stdout) == (0, "Erased: 2 events.\n")
        assert "done, replay, no body" in (await shell("list")).stdout
        told = await shell("erase", ONE, "--yes")
        assert (told.exit_code, told.stdout) == (0, f"Nothing was kept of {ONE}.\n")
        told = await shell("replay", "--call", ONE)
        assert (told.exit_code, told.stdout) == (0, NOTHING)


async def test_json_is_an_array_and_filters_are_passed_on(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        assert (await shell("list", "--json")).stdout == "[]\n"
        assert (await shell("list")).stdout == "No delivery matches.\n"
        stored = await shell.publish(ONE, 2)
        await shell.publish(TWO, 1)
        await shell.until(3, "--state", "done")
        tag = endpoint_tag(shell.setup.receiver.url)
        for arguments, found in (
            ((), 3),
            (("--call", ONE), 2),
            (("--id", stored[0].event_id, "--id", "evt_other"), 1),
            (("--endpoint", tag, "--state", "done", "--state", "pending"), 3),
            (("--endpoint", "https://agent.example.com/"), 0),
            (("--since", "1h"), 3),
            (("--until", "1h"), 0),
            (("--since", "2020-01-01T00:00:00Z", "--until", "2021-01-01T00:00:00+02:00"), 0),
        ):
            told = await shell("list", "--json", *arguments)
            assert told.exit_code == 0, told.output
            records = json.loads(told.stdout)
            assert len(records) == found, arguments
            assert all(record["host"] == "127.0.0.1" and record["kept"] for record in records)


async def test_a_limit_above_a_page_is_several_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.api.deliveries.LARGEST_PAGE", 2)
    async with bridge(tmp_path) as shell:
        await shell.publish(ONE, 5)
        await shell.until(5, "--state", "done")
        for limit, found in ((1, [5]), (4, [5, 4, 3, 2]), (5, [5, 4, 3, 2, 1]), (100, [5, 4, 3, 2, 1])):
            told = await shell("list", "--json", "--limit", limit)
            assert [record["sequence"] for record in json.loads(told.stdout)] == found
            assert ("There are more" in told.stderr) == (limit < 5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--state", "ded"], "state 'ded' cannot be used: there are pending, done, dead, erased"),
        (["list", "--since", "yesterday"], "since 'yesterday' cannot be used"),
        (["list", "--call", ""], "call_sid '' cannot be used"),
        (["list", *(["--id", "evt_a"] * 101)], "list takes --id 100 times at most"),
        (["replay"], "replay needs a filter, such as --state dead or --call CA...; --all means everything"),
        (["replay", "--call", "", "--state", "dead"], "call_sid '' cannot be used"),
        (["replay", "--since", "1h", "--until", "2h"], "until must be later than since"),
        (["replay", *(["--id", "evt_a"] * 1001)], "event_id has 1001 values"),
        (["erase", "../x", "--yes"], "call_sid '../x' cannot be used: a call's id begins with CA"),
        (["erase", ONE], "erase asks before it removes anything: use a terminal, or --yes"),
        (["list", "--url", "bridge.example.com"], "--url must be the address of a bridge"),
        (["list", "--url", ""], "--url must be the address of a bridge"),
    ],
)
async def test_wrong_usage_is_found_before_anybody_is_asked(
    tmp_path: Path, arguments: list[str], words: str
) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text('[server]\nport = 9\nadmin_token = "x"\n')  # nobody listens there
    told = await command(*arguments, "--config", config)
    assert isinstance(told.exception, UsageError)
    assert words in str(told.exception)


async def test_without_a_token_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text("[server]\nport = 8080\n")
    told = await command("list", "--config", tmp_path / "bridge.toml")
    assert isinstance(told.exception, ConfigError)
    assert "server.admin_token is empty" in str(told.exception)


async def test_a_bridge_with_another_token_or_none(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text('[server]\nport = 0\nadmin_token = "another"\n')
    told = await command("list", "--config", config)
    assert isinstance(told.exception, UsageError)
    assert "--url" in str(told.exception)
    async with bridge(tmp_path) as shell:
        config.write_text('[server]\nport = 0\nadmin_token = "another"\n')
        told = await shell("list", "--url", shell.setup.url)
        assert isinstance(told.exception, BridgeError)
        assert "refuses the admin token" in str(told.exception)
    async with running(tmp_path, NOWHERE) as setup:
        told = await command("list", "--config", config, "--url", setup.url)
        assert "started with an empty server.admin_token" in str(told.exception)


async def test_everything_has_to_be_meant(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        told = await shell("replay", "--all")
        assert (told.exit_code, told.stdout) == (0, NOTHING)


async def test_what_was_delivered_is_sent_once_more_only_if_that_is_said(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        (stored,) = await shell.publish(ONE, 1)
        await shell.until(1, "--state", "done")
        assert (await shell("replay", "--id", stored.event_id)).stdout == NOTHING
        told = await shell("replay", "--id", stored.event_id, "--state", "done")
        assert told.stdout == "Replayed: 1.\n"
        again = await shell.setup.receiver.wait_for(lambda r: "bridge-replay" in r.headers)
        assert (again.webhook_id, again.body) == (stored.event_id, stored.body)


async def test_the_token_is_not_sent_in_clear_without_a_word(tmp_path: Path) -> None:
    (tmp_path / "bridge.toml").write_text('[server]\nadmin_token = "x"\n')
    told = await command("list", "--url", "http://bridge.invalid", "--config", tmp_path / "bridge.toml")
    assert "The admin token travels unencrypted" in told.stderr
    assert "no bridge answers at http://bridge.invalid" in str(told.exception)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "bridge", "deliveries", *(str(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_no_bridge_is_one_sentence_and_exit_1_wrong_usage_2(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text('[server]\nport = 9\nadmin_token = "x"\n')
    for arguments, code, words in (
        (["list"], 1, "no bridge answers at http://127.0.0.1:9 "),
        (["erase", ONE], 2, "use a terminal, or --yes"),
        (["replay"], 2, "replay needs a filter"),
    ):
        done = run(*arguments, "--config", config)
        assert done.returncode == code
        assert words in done.stderr
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


@pytest.mark.parametrize("name", ["list", "replay", "erase"])
def test_every_command_has_an_example(name: str) -> None:
    done = run(name, "--help")
    assert done.returncode == 0
    assert f"Example: whisper-bridge deliveries {name}" in done.stdout


async def typed(shell: Shell, answer: bytes, columns: int, *arguments: str) -> tuple[int, str]:
    """What the command shows on a terminal, answered with `answer`."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "deliveries", *arguments, "--config", str(shell.config)),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    os.write(ours, answer)
    while True:
        try:
            part = await asyncio.to_thread(os.read, ours, 65536)
        except OSError:  # how a terminal says that nobody is there any more
            break
        if not part:
            break
        shown += part
    os.close(ours)
    code = await process.wait()
    return code, re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


async def test_a_terminal_is_asked_before_anything_is_erased(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        await shell.publish(ONE, 1)
        await shell.until(1, "--state", "done")
        code, shown = await typed(shell, b"n\n", 80, "erase", ONE)
        assert code == 1
        assert f"Remove all that is kept of {ONE}? It cannot be undone. [y/N]" in shown
        assert "Traceback" not in shown
        assert json.loads((await shell("list", "--json")).stdout)[0]["kept"]
        code, shown = await typed(shell, b"y\n", 80, "erase", ONE)
        assert code == 0
        assert "Erased: 1 events." in shown


async def test_ids_are_whole_in_a_narrow_terminal_too(tmp_path: Path) -> None:
    async with bridge(tmp_path) as shell:
        shell.setup.receiver.default = Answer(503)
        first, second = await shell.publish(ONE, 2)
        await shell.setup.receiver.wait_for(lambda r: r.call_sid == ONE)
        async with asyncio.timeout(10):
            while not json.loads((await shell("list", "--json")).stdout)[1]["last_status"]:
                await asyncio.sleep(0.02)
        _, wide = await typed(shell, b"", 200, "list")
        assert f"{first.event_id}  {ONE}  call.dtmf" in wide
        for columns in (40, 80):
            code, narrow = await typed(shell, b"", columns, "list")
            assert code == 0
            assert f"{second.event_id} call.dtmf #2 pending\n  {ONE}, 0s old, tries: 0\n" in re.sub(
                r", \d+s old", ", 0s old", narrow
            )
            assert re.search(
                rf"{first.event_id} call.dtmf #1 pending\n  {ONE}, \d+s old, tries: \d, .*503.*, next in \d+s\n",
                narrow,
            )
