import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from aiohttp import web
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner, Result

from bridge.cli import calls
from bridge.errors import BridgeError, UsageError
from bridge.local.twilio.rest import Line, RestApi
from bridge.local.twilio.script import Script
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, running
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


async def invoke(command: str, *arguments: object) -> Result:
    app = typer.Typer()
    app.callback()(lambda: None)
    calls.register(app)
    texts = ["calls", command, *(str(argument) for argument in arguments)]
    return await asyncio.to_thread(CliRunner().invoke, app, texts)


async def transcript(*arguments: object) -> Result:
    return await invoke("transcript", *arguments)


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
    [
        (("transcript", ONE, "--format", "pdf"), "--format must be text, json, vtt or srt"),
        (("transcript", "1234"), "CA"),
        (("show", "1234"), "CA"),
        (("attach", "CA/../../deliveries"), "CA"),
        (("detach", ""), "CA"),
    ],
)
async def test_wrong_usage_is_found_before_anybody_is_asked(arguments: tuple[str, ...], words: str) -> None:
    wrong = await invoke(*arguments)
    assert isinstance(wrong.exception, UsageError)
    assert words in str(wrong.exception)


async def test_every_command_has_help_with_an_example() -> None:
    for command in ("list", "show", "attach", "detach", "dial", "transcript"):
        told = await invoke(command, "--help")
        assert told.exit_code == 0
        assert f"Example: whisper-bridge calls {command}" in " ".join(told.stdout.replace("`", "").split())


async def test_from_the_first_word_of_a_call_by_hand_to_its_end(tmp_path: Path) -> None:
    async with RestApi(ACCOUNT) as api, NumberedWhisper() as whisper:
        server, twilio = {"admin_token": TOKEN}, {"api_base_url": api.url}
        async with running(tmp_path, whisper.url, server=server, twilio=twilio) as setup:
            at = ("--config", config_file(tmp_path, setup.bridge.port))
            assert (await invoke("list", *at)).stdout == "No live call.\n"
            api.numbers.add("+15550199")
            api.calls.line = Line(setup.url, PUBLIC_URL, {"inbound": speech(range(80))}, Script(speed=2))
            then = ("--then", "https://voice.example.com/hello")
            dialled = await invoke("dial", "+15550199", "+15550100", *then, *at)
            assert dialled.stdout.startswith("Dialled: CA")
            call_sid = dialled.stdout.removeprefix("Dialled: ").rstrip(".\n")
            await setup.receiver.wait_for(lambda r: r.type == "transcript.final", 10)
            head, row = (await invoke("list", *at)).stdout.splitlines()
            assert head.split() == ["call", "state", "from", "to", "direction", "tracks", "age", "behind"]
            assert row.split()[:5] == [call_sid, "live", "+15550199", "+15550100", "outbound-api"]
            (listed,) = json.loads((await invoke("list", "--json", *at)).stdout)
            stream_sid = listed["stream_sid"]
            shown = dict(
                line.split(None, 1) for line in (await invoke("show", call_sid, *at)).stdout.splitlines()
            )
            assert (shown["state"], shown["tracks"], shown["gaps"]) == ("live", "inbound, outbound", "0")
            assert int(shown["finals"]) >= 1
            attached = await invoke("attach", call_sid, *at)
            assert attached.stdout == f"Attached already: stream {stream_sid}.\n"
            assert (await invoke("detach", call_sid, *at)).stdout == "Detached.\n"
            assert (await invoke("detach", call_sid, *at)).stdout == "It was not transcribed any more.\n"
            await setup.ended(call_sid)
            ended: dict[str, Any] = {"state": "ending"}  # its process has a moment's work left
            async with asyncio.timeout(5):
                while ended["state"] == "ending":
                    ended = json.loads((await invoke("show", call_sid, "--json", *at)).stdout)
            assert (ended["call_sid"], ended["state"], ended["behind_s"]) == (call_sid, "ended", None)
            refused = await invoke("attach", call_sid, *at)
            assert isinstance(refused.exception, BridgeError)
            assert str(refused.exception) == (
                "The call has been transcribed to its end, and its call.ended was told."
            )


async def test_what_a_caller_put_into_his_name_does_not_reach_the_terminal(tmp_path: Path) -> None:
    async def calls_of(_: web.Request) -> web.Response:
        call: dict[str, object] = {
            "call_sid": ONE,
            "state": "live",
            "from": "sip:\x1b[2Jann@example.com",
            "to": None,
        }
        call |= {"direction": "inbound", "tracks": ["inbound"], "since": None, "behind_s": 0.0}
        return web.json_response({"calls": [call], "call": call})

    app = web.Application()
    app.router.add_get("/{path:.*}", calls_of)
    async with TestServer(app) as server:
        at = ("--url", str(server.make_url("/")), "--config", config_file(tmp_path, 1))
        for command in (("list",), ("show", ONE)):
            told = await invoke(*command, *at)
            assert "\x1b" not in told.stdout
            assert "sip:\\x1b[2Jann@example.com" in told.stdout


async def test_what_does_not_arrive_and_what_fails_is_said(tmp_path: Path) -> None:
    answers: list[tuple[int, dict[str, object]]] = [
        (200, {"stream_sid": "MZ1", "already": False, "arrived": True}),
        (200, {"stream_sid": "MZ1", "already": False, "arrived": False}),
        (404, {"error": "Twilio's REST API does not know the call (404)."}),
        (404, {"error": "Nothing matches the given URI."}),
        (409, {"error": "The call is over (completed)."}),
        (502, {"error": "Twilio's REST API answered 500."}),
    ]

    async def answer(_: web.Request) -> web.Response:
        status, body = answers.pop(0)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        told = [
            await invoke("attach", ONE, "--url", url, "--config", config_file(tmp_path, 1)) for _ in range(6)
        ]
    assert told[0].stdout == "Attached: stream MZ1.\n"
    assert "has not come to this bridge" in told[1].stdout
    assert [str(each.exception) for each in told[2:]] == [
        "Twilio's REST API does not know the call (404).",
        (
            f"there is no operator's API at {url.rstrip('/')}: the bridge was started with an empty "
            "server.admin_token, or this is not a bridge"
        ),
        "The call is over (completed).",
        f"the bridge at {url.rstrip('/')} answers 502: Twilio's REST API answered 500.",
    ]
