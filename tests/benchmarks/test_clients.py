import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import BridgeError
from bridge.local.twilio import frame
from tests.benchmarks.child import Child
from tests.benchmarks.clients import __main__ as clients
from tests.benchmarks.clients import report, twilio, whisper
from tests.benchmarks.clients.contest import Receiver, Sender
from tests.benchmarks.clients.contestant import BRIDGE, EXTRA, NOTHING, RECEIVING, SENDING
from tests.benchmarks.clients.twilio import Twilio
from tests.benchmarks.clients.whisper import Whisper
from tests.benchmarks.clients.workload import FRAMES, MESSAGES, grouped, lone
from tests.doubles.tls_proxy import CERTIFICATE

SOCKETS = 3
CPUS = os.sched_getaffinity(0)


async def sent_us(name: str) -> float:
    """What sending costs this one, with TLS."""
    async with (
        Whisper(tls=True) as heard,
        Child(
            *("tests.benchmarks.clients.sending", name, heard.url, str(SOCKETS)),
            cpus=CPUS,
            environment={"SSL_CERT_FILE": str(CERTIFICATE)},
        ) as child,
    ):
        return await Sender(name, True, child, whisper=heard).cost_us("grouped", 0.1)


async def received_us(name: str) -> float:
    """What receiving costs this one, with TLS."""
    async with (
        Child("tests.benchmarks.clients.receiving", name, str(CERTIFICATE), cpus=CPUS) as child,
        Twilio(f"wss://localhost:{child.port}/", SOCKETS) as played,
    ):
        return await Receiver(name, True, child, twilio=played).cost_us("spread", 0.1)


def require(name: str) -> None:
    if name in EXTRA and not importlib.util.find_spec(EXTRA[name]):
        pytest.skip(f"{EXTRA[name]} is not installed")


@pytest.mark.parametrize("name", SENDING)
async def test_everybody_sends_all_of_it(name: str) -> None:
    require(name)
    assert await sent_us(name) > 0


@pytest.mark.parametrize("name", RECEIVING)
async def test_everybody_receives_all_of_it(name: str) -> None:
    require(name)
    assert await received_us(name) > 0


async def test_a_frame_that_arrives_with_its_mask_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whisper, "masked", lambda payload, _key: payload)
    with pytest.raises(
        BridgeError, match="bridge, grouped: not everything has arrived, or not as it was sent"
    ):
        await sent_us(BRIDGE)


async def test_a_message_that_nobody_sent_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = frame.text(MESSAGES[0].replace("inbound", "outbound"))
    monkeypatch.setattr(twilio, "_FRAMES", (wrong, *twilio._FRAMES[1:]))
    with pytest.raises(BridgeError, match="bridge, spread: not everything has arrived"):
        await received_us(BRIDGE)


async def test_the_command_prints_one_line_and_tables() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.benchmarks.clients", BRIDGE),
        *("--sockets", "2", "--rounds", "2", "--seconds", "0.05"),
        cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(50):
        line, told = await process.communicate()
    assert process.returncode == 0, told
    results = json.loads(line)
    costs = results["cost_us"]
    assert {load: list(names) for load, names in costs.items()} == {
        "grouped": [NOTHING, BRIDGE],
        "lone": [NOTHING, BRIDGE],
        "spread": [BRIDGE],
    }
    for figures in (costs["lone"][NOTHING], costs["spread"][BRIDGE]):
        for cost in figures.values():
            assert 0 < cost["least"] <= cost["us"] <= cost["most"]
    assert (results["rounds"], results["sockets"]) == (2, 2)
    assert results["void"] is (results["late_ms"]["p99"] > 5)
    assert "Receiving 350 bytes of text from Twilio" in told.decode()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rounds", "0"], "a socket and a round at least"),
        (["--seconds", "6"], "turns of 5 seconds at most"),
        (["curl"], "there is no way curl: choose from nothing, bare, websockets"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        clients.main(arguments)
    assert sentence in capsys.readouterr().err


def test_what_a_turn_costs_is_taken_off_those_who_send() -> None:
    def senders(name: str) -> tuple[Any, Any]:
        plain, secure = (Sender(name, tls, None, whisper=None) for tls in (False, True))  # type: ignore[arg-type]  # at no work
        return (plain, "lone"), (secure, "lone")

    (idle, idle_tls), (own, own_tls) = senders(NOTHING), senders(BRIDGE)
    figures = clients._figures(
        {idle: [1.0, 3.0, 2.0], idle_tls: [4.0] * 3, own: [11.0, 14.0, 10.0], own_tls: [30.0, 24.0, 20.0]}
    )

    assert figures["lone"][BRIDGE] == {
        "plain": {"us": 9.0, "least": 8.0, "most": 12.0},
        "tls": {"us": 20.0, "least": 16.0, "most": 26.0},
    }
    assert figures["lone"][NOTHING]["plain"] == {"us": 2.0, "least": 1.0, "most": 3.0}


def test_the_tables_can_be_had_as_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    def cost(us: float) -> Mapping[str, Mapping[str, float]]:
        return {
            "plain": {"us": us, "least": us - 1, "most": us + 1},
            "tls": {"us": 2 * us, "least": 1, "most": 9},
        }

    report.show(
        {
            "cost_us": {"grouped": {NOTHING: cost(3), "picows": cost(8), BRIDGE: cost(10)}},
            "rounds": 5,
            "seconds": 0.4,
            "sockets": 200,
            "pinned": True,
            "void": True,
            "late_ms": {"p50": 0.1, "p99": 7, "max": 8},
        },
        markdown=True,
    )
    told = capsys.readouterr().err.splitlines()

    assert told[1] == "| --- | ---: | ---: | ---: |"
    assert told[2] == "| the schedule alone | 3.0 (2.0 to 4.0) | 6.0 (1.0 to 9.0) |  |"
    assert told[3] == "| picows | 8.0 (7.0 to 9.0) | 16.0 (1.0 to 9.0) | 0.80 |"
    assert told[4] == "| the bridge | 10.0 (9.0 to 11.0) | 20.0 (1.0 to 9.0) | 1.00 |"
    assert told[-2].endswith("7.0 ms at p99. THIS RUN IS VOID: the machine was busy.")
    assert told[-1] == (
        "The best that could be an extra: picows. It saves 20% of a grouped send with TLS; "
        "to be offered, it must save more than 20%: no."
    )


def test_everybody_has_a_turn() -> None:
    sockets = range(200)
    for turns, size in ((grouped(), 25), (lone(len(sockets)), 1)):
        groups = turns.groups(sockets)
        assert {len(group) for group in groups} == {size}
        assert sorted(socket for group in groups for socket in group) == list(sockets)
    assert len({*FRAMES}) == len(FRAMES)
    assert all(330 <= len(message) <= 400 for message in MESSAGES)
