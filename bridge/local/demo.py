"""The main job on one machine: a call through the real commands to a webhook receiver, watched live."""

import asyncio
import base64
import json
import secrets
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bridge import events
from bridge.errors import BridgeError
from bridge.local.demo_child import Child
from bridge.local.demo_result import Result, result
from bridge.local.demo_screen import Screen
from bridge.local.receiver import Received, Receiver
from bridge.local.twilio import Account, SimulatedCall, Track

PUBLIC_URL: Final = "https://bridge.example.com"
"""What the bridge calls itself; signatures are made over it, nothing is ever sent there."""

START_S: Final = 60.0
LOAD_S: Final = 900.0
"""A Whisper model may have to be downloaded first."""
LAST_EVENT_S: Final = 60.0
"""From the hang-up to `call.ended`: the recogniser may have the last sentences still before it."""
TICK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Play:
    """What is played: mu-law for each track, and what is said on it where that is known."""

    audio: Mapping[Track, bytes]
    said: Mapping[Track, str]
    title: str


async def run(
    play: Play, engine: str, model: str | None, screen: Screen
) -> tuple[Result, Sequence[Received]]:
    """Play the call, show it, and judge it. Raises BridgeError when something cannot even start.

    SIGINT and SIGTERM end it in order: the children first, then KeyboardInterrupt or SystemExit(143).
    """
    children: list[Child] = []
    main = asyncio.ensure_future(_run(play, engine, model, screen, children))
    caught: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        caught.append(number)
        if len(caught) == 1:
            main.cancel()
            return
        # Whoever asks twice does not want to wait; cancelling twice would leave children behind.
        for child in children:
            child.kill()

    loop = asyncio.get_running_loop()
    handled = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in handled:
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await main
    except asyncio.CancelledError:
        if not caught:
            raise
        if caught[0] is signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + caught[0]) from None
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def _run(
    play: Play, engine: str, model: str | None, screen: Screen, children: list[Child]
) -> tuple[Result, Sequence[Received]]:
    account = Account("AC" + secrets.token_hex(16), secrets.token_hex(16))
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="whisper-bridge-demo-")))
        receiver = await stack.enter_async_context(Receiver(secret, on_event=screen.event))
        stack.enter_context(screen)

        screen.waiting("the recogniser is being loaded")
        arguments = ["--engine", engine, *(["--model", model] if model else [])]
        whisper = Child("whisper", "--port", "0", *arguments)
        children.append(whisper)
        stack.push_async_callback(whisper.stop)
        ears = await whisper.start(START_S if engine == "pocketsphinx" else LOAD_S)

        screen.waiting("the bridge is starting")
        config = folder / "bridge.toml"
        config.write_text(_config(account, secret, receiver.url, str(ears["url"]), folder), encoding="utf-8")
        serve = Child("serve", "--config", str(config))
        children.append(serve)
        stack.push_async_callback(serve.stop)
        port = (await serve.start(START_S))["port"]

        call = SimulatedCall(
            account, f"http://127.0.0.1:{port}/twilio/voice", play.audio, public_url=PUBLIC_URL
        )
        screen.begin(play.title, str(ears["engine"]), call.duration_ms)
        ended = asyncio.create_task(_hear(call, receiver, screen))
        deaths = [asyncio.create_task(child.ended()) for child in children]
        try:
            await asyncio.wait({ended, *deaths}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                dead = next(child for child, death in zip(children, deaths, strict=True) if death.done())
                raise BridgeError(f"{dead.name} ended during the call: {await dead.last_words()}")
            await ended
        finally:
            for task in (ended, *deaths):
                task.cancel()
            await asyncio.gather(ended, *deaths, return_exceptions=True)
        outcome = result(receiver.received, call.report, play.said)
        screen.end(outcome)
        return outcome, receiver.received


async def _hear(call: SimulatedCall, receiver: Receiver, screen: Screen) -> None:
    """The call, to its last webhook."""
    calling = asyncio.create_task(call.run())
    try:
        while not calling.done():
            screen.position(call.position_ms)
            await asyncio.wait({calling}, timeout=TICK_S)
    finally:
        if not calling.done():
            calling.cancel()
            await asyncio.gather(calling, return_exceptions=True)
    screen.position(call.position_ms)
    report = calling.result()
    if not report.frames_sent:
        return
    screen.waiting("the caller has hung up; the last words are on their way")
    try:
        await receiver.wait_for_type("call.ended", LAST_EVENT_S, call_sid=report.call_sid)
    except TimeoutError:
        return  # the result says so


def _config(account: Account, secret: str, webhook_url: str, whisper_url: str, folder: Path) -> str:
    """The configuration of the demo's bridge. A JSON string is a TOML string too."""
    sections: dict[str, dict[str, object]] = {
        "server": {"host": "127.0.0.1", "port": 0, "public_url": PUBLIC_URL, "max_calls": 10},
        "twilio": {"account_sid": account.sid, "auth_token": account.auth_token},
        "whisper": {"url": whisper_url, "partials": True},
        "webhook": {
            "url": webhook_url,
            "secret": secret,
            "events": list(events.TYPES),
            "allow_private_networks": ["127.0.0.0/8"],
        },
        "outbox": {"url": f"sqlite://{folder / 'outbox'}"},
    }
    return "\n".join(
        f"[{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in section.items())
        for name, section in sections.items()
    )
