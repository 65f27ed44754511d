import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import typer
from typer.testing import CliRunner, Result

from bridge.cli import calls
from bridge.errors import BridgeError, UsageError
from tests.doubles.bridge import running
from tests.doubles.numbered import NumberedWhisper, speech

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE = "CA" + "1" * 32


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """The bridge, in the same process, would log into what the command prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


async def transcript(*arguments: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    calls.register(app)
    texts = ["calls", "transcript", *(str(argument) for argument in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, texts)


def config_file(directory: Path, port: int) -> Path:
    path = directory / "bridge.toml"
    path.write_text(f'[server]\nport = {port}\nadmin_token = "{TOKEN}"\n')
    return path


async def test_a_finished_call_in_every_format(tmp_path: Path) -> None:
    server = {"admin_token": TOKEN}
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url, server=server) as setup:
        report = await setup.call({"inbound": speech(range(40, 44))}).run()
        await setup.ended(report.call_sid)
        asked = (report.call_sid, "--config", config_file(tmp_path, setup.bridge.port))
        text = await transcript(*asked)
        assert (text.exit_code, text.stdout) == (0, "[00:00:00] Caller: w40 w41 w42 w43\n")
        (line,) = json.loads((await transcript(*asked, "--format", "json")).stdout)
        assert (line["track"], line["text"]) == ("inbound", "w40 w41 w42 w43")
        vtt = (await transcript(*asked, "--format", "vtt")).stdout
        assert vtt.startswith("WEBVTT\n\n00:00:00.000 --> 00:00:0")
        srt = (await transcript(*asked, "--format", "srt")).stdout
        assert srt.startswith("1\n00:00:00,000 --> 00:00:0")


async def test_what_cannot_be_shown_is_one_sentence(tmp_path: Path) -> None:
    async with running(tmp_path, NOWHERE, server={"admin_token": TOKEN}) as setup:
        unknown = await transcript(ONE, "--config", config_file(tmp_path, setup.bridge.port))
    assert isinstance(unknown.exception, BridgeError)
    assert unknown.exception.exit_code == 1
    assert f"no text of {ONE} is kept" in str(unknown.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((ONE, "--format", "pdf"), "--format must be text, json, vtt or srt"), (("1234",), "CA")],
)
async def test_wrong_usage_is_found_before_anybody_is_asked(arguments: tuple[str, ...], words: str) -> None:
    wrong = await transcript(*arguments)
    assert isinstance(wrong.exception, UsageError)
    assert words in str(wrong.exception)
