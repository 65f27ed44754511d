"""Numbers are attached and detached by the command, which is killed at every step; and their bridge dies.

Wherever the command is killed, before or after Twilio does what it was asked: said again it goes on, and `detach`
puts everything back byte for byte. A call of the number reaches its own handler at every moment, also while the
bridge is dead.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from aiohttp import web
from twilio.request_validator import RequestValidator

from bridge.local.receiver import Receiver
from bridge.local.twilio.report import CallReport
from bridge.local.twilio.rest import Fault, Line, RestApi
from bridge.local.twilio.script import Script
from tests.chaos.port import free_port
from tests.chaos.side import voices
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET
from tests.doubles.numbered import NumberedWhisper
from tests.doubles.process import Around, Process, serving

NUMBERS: Final = ("+15550101", "+15550102", "+15550103", "+15550104")
KILLED: Final = NUMBERS[3]
"""Answered by an application, with a status callback: most has to be remembered of it."""

COMMAND_S: Final = 60.0
AT_ONCE: Final = 2
WORDS: Final = 6
SETTINGS: Final = 'admin_token = "an-admin-token-of-some-length"'


@dataclass(slots=True)
class Figures:
    """What happened."""

    numbers: int = 0
    kills: int = 0
    calls: int = 0
    """That reached the number's own handler."""

    def __str__(self) -> str:
        return (
            f"{self.numbers} numbers attached, called and detached, {self.kills} commands killed, "
            f"{self.calls} calls reached the number's own handler, all numbers byte for byte as before"
        )


async def run(directory: Path, *, kills: int | None = None) -> Figures:
    """The round trip, and then kills: so many for each of attach and detach, None: at every step."""
    figures = Figures()
    await _round_trip(directory / "trip", figures)
    room = asyncio.Semaphore(AT_ONCE)
    steps = [
        (command, step, afterwards, then)
        for command in ("attach", "detach")
        for step, afterwards, then in (await _steps(directory / command, command))[:kills]
    ]

    async def killed(number: int, command: str, step: int, then: str, *, afterwards: bool) -> None:
        async with room, Office(directory / f"killed-{number}") as office:
            await _killed(office, figures, command, step, then, afterwards=afterwards)

    async with asyncio.TaskGroup() as group:
        for number, (command, step, afterwards, then) in enumerate(steps):
            group.create_task(killed(number, command, step, then, afterwards=afterwards))
    return figures


class Desk:
    """The handler that the numbers had before: answers every signed request at `url` with a call flow of its own."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        """Method and path with query of each request."""
        self.url = ""

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        signature = request.headers.get("X-Twilio-Signature", "")
        if not RequestValidator(ACCOUNT.auth_token).validate(self.url + request.raw_path, form, signature):
            return web.Response(status=403)
        self.asked.append((request.method, request.path))
        return web.Response(text="<Response><Pause length='60'/></Response>", content_type="text/xml")


class Office:
    """An account with numbers of several kinds, and a bridge's directory; `async with` opens it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.desk = Desk()
        self.twilio = RestApi(ACCOUNT)
        self.receiver = Receiver(SECRET)
        self.whisper = NumberedWhisper()
        self.port = free_port()
        self._directory = directory
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as opening:
            for part in (self.desk, self.twilio, self.receiver, self.whisper):
                await opening.enter_async_context(part)
            self._open = opening.pop_all()
        handler, numbers = f"{self.desk.url}/in?flow=a&secret=7", self.twilio.numbers
        sorry = f"{self.desk.url}/sorry"
        numbers.add(NUMBERS[0], voice_url=handler, voice_method="GET")
        numbers.add(NUMBERS[1], voice_url=handler, voice_fallback_url=sorry, voice_fallback_method="GET")
        numbers.add(NUMBERS[2], voice_url=handler, status_callback=f"{self.desk.url}/status")
        application = self.twilio.applications.add(
            "Desk", voice_url=handler, voice_fallback_url=sorry, status_callback=f"{self.desk.url}/status"
        )
        numbers.add(KILLED, voice_application_sid=application, voice_url="https://ignored.example.com/")
        line = Line(f"http://127.0.0.1:{self.port}", PUBLIC_URL, voices(0, WORDS), Script(speed=10))
        self.twilio.calls.line = line
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def around(self) -> Around:
        """What commands and the bridge are started with."""
        return Around(
            self._directory,
            self.whisper.url,
            self.receiver.url,
            server=SETTINGS,
            twilio=f'api_base_url = "{self.twilio.url}"',
            port=self.port,
        )

    async def started(self, command: str, *numbers: str) -> asyncio.subprocess.Process:
        """`whisper-bridge numbers ...` as a process of its own."""
        words = (sys.executable, "-m", "bridge", "numbers", command, *numbers)
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            *words, "--config", str(self.around.config()), stdout=pipe, stderr=pipe
        )

    async def do(self, command: str, *numbers: str) -> None:
        """Have it done. Raises AssertionError with what it says if it fails."""
        process = await self.started(command, *numbers)
        async with asyncio.timeout(COMMAND_S):
            out, error = await process.communicate()
        assert process.returncode == 0, f"{command} failed: {(error or out).decode()}"

    async def called(self, number: str) -> CallReport:
        """Somebody calls a number, and listens to what its handler has to say."""
        call = self.twilio.calls.incoming(number)
        async with asyncio.timeout(COMMAND_S):
            return await call.run()

    async def reached(self, number: str) -> None:
        """Somebody calls a number. Raises AssertionError if its own handler does not answer."""
        asked = len(self.desk.asked)
        report = await self.called(number)
        paths = [path for _, path in self.desk.asked[asked:]]
        assert "/in" in paths, f"{number} was answered by {report.documents}"
        assert not report.documents[-1].problem, f"{number}: {report.documents}"


async def _round_trip(directory: Path, figures: Figures) -> None:
    async with Office(directory) as office:
        before = office.twilio.numbers.snapshot()
        await office.do("attach", *NUMBERS)
        ours = {office.twilio.numbers.handler(number).url for number in NUMBERS}
        assert ours == {f"{PUBLIC_URL}/twilio/voice"}, f"attached to {ours}"
        for number in NUMBERS:
            await office.reached(number)  # there is no bridge yet
            figures.calls += 1
        async with serving(office.around) as bridge:
            await bridge.port()
            for number in NUMBERS:
                await _transcribed(office, bridge, number)
                figures.calls += 1
            await office.do("detach", NUMBERS[0])  # by way of the bridge, which has the outbox
        await office.do("detach", *NUMBERS[1:])
        assert office.twilio.numbers.snapshot() == before, "a number is not as it was before"
        for number in NUMBERS:
            await office.reached(number)
            figures.numbers += 1
            figures.calls += 1


async def _transcribed(office: Office, bridge: Process, number: str) -> None:
    """A call of the number goes on to its own handler, and what is said is told."""
    asked = len(office.desk.asked)
    report = await office.called(number)
    assert report.ok, f"{number}: {report.problem} {bridge.lines[-3:]}"
    assert "/in" in [path for _, path in office.desk.asked[asked:]], f"{number}: {report.documents}"
    ended = await office.receiver.wait_for_type("call.ended", COMMAND_S, call_sid=report.call_sid)
    said = [line["text"] for line in ended.data["transcript"] if line["track"] == "inbound"]
    assert len(" ".join(said).split()) == WORDS, f"{number}: {said} was told of {WORDS} words"


async def _steps(directory: Path, command: str) -> Sequence[tuple[int, bool, str]]:
    """Every moment at which a command can be killed: while Twilio is asked, and after it has done it."""
    async with Office(directory) as office:
        if command == "detach":
            await office.do("attach", KILLED)
        asked = len(office.twilio.requests)
        await office.do(command, KILLED)
        requests = office.twilio.requests[asked:]
    changes = [step for step, request in enumerate(requests) if request.method == "POST"]
    others = [step for step in range(len(requests)) if step not in changes]
    return [
        (step, afterwards, then)
        for step in changes + others
        for afterwards in (True, False)
        for then in ("attach", "detach")
    ]


async def _killed(
    office: Office, figures: Figures, command: str, step: int, then: str, *, afterwards: bool
) -> None:
    """Kill a command in one step; say it again, or the other one, and then put everything back."""
    before = office.twilio.numbers.snapshot()
    if command == "detach":
        await office.do("attach", KILLED)
    where = f"{command} killed at request {step}{' when it was done' if afterwards else ''}, then {then}"
    never = asyncio.Event()
    fault = office.twilio.faults.add(Fault(skips=step, afterwards=afterwards, released=never, drops=True))
    process = await office.started(command, KILLED)
    async with asyncio.timeout(COMMAND_S):
        await fault.met.wait()
    process.kill()
    await process.communicate()
    never.set()
    figures.kills += 1
    try:
        await office.reached(KILLED)
        await office.do(then, KILLED)
        await office.reached(KILLED)
        figures.calls += 2
        await office.do("detach", KILLED)
    except AssertionError as error:
        raise AssertionError(f"{where}: {error}") from None
    assert office.twilio.numbers.snapshot() == before, f"{where}: {_differences(before, office)}"


def _differences(before: bytes, office: Office) -> list[Any]:
    now = office.twilio.numbers.snapshot()
    return [pair for pair in zip(before.splitlines(), now.splitlines(), strict=True) if pair[0] != pair[1]]
