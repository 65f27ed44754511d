"""Several workers, as processes: what is said and asked of them from outside is what one bridge would answer."""

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.local import speech as sounds
from bridge.local.demo_child import Child
from bridge.local.receiver import Receiver
from bridge.local.twilio.call import SimulatedCall
from bridge.local.twilio.handler import Handler
from bridge.local.twilio.rest import RestApi
from bridge.outbox.sqlite import Sqlite
from bridge.workers.child import Child as Worker
from bridge.workers.supervisor import Supervisor
from tests.chaos.port import free_port
from tests.doubles.bridge import ACCOUNT, PUBLIC_URL, SECRET, settings
from tests.doubles.numbered import NumberedWhisper, speech
from tests.doubles.process import Around, Process, serving
from tests.doubles.switchboard import CA, FORM, start, until

TOKEN = "an-admin-token"
ALONE = aiohttp.ClientTimeout(total=30)
START_S = 60.0
"""Of several processes on a machine that is busy."""


@dataclass
class Machine:
    """A bridge of several workers, and everything around it."""

    bridge: Process
    receiver: Receiver
    whisper: NumberedWhisper
    twilio: RestApi
    client: aiohttp.ClientSession
    around: Around
    url: str
    calls: dict[SimulatedCall, asyncio.Task[Any]] = field(default_factory=dict)

    def lines(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.bridge.lines if line["event"] == event]

    @property
    def pids(self) -> dict[int, int]:
        return {line["worker"]: line["pid"] for line in self.lines("worker_ready")}

    async def call(self, words: int = 200) -> SimulatedCall:
        """One more call, which is streamed on return."""
        voice = f"{self.url}/twilio/voice"
        call = SimulatedCall(ACCOUNT, voice, {"inbound": speech(range(words))}, public_url=PUBLIC_URL)
        self.calls[self.twilio.add(call)] = asyncio.create_task(call.run())
        await until(lambda: any(self.carries(call)), timeout=START_S)
        return call

    def carries(self, call: SimulatedCall) -> list[int]:
        """The workers that had its streams, in order."""
        started = self.lines("stream_started")
        return [line["worker"] for line in started if line["call_sid"] == call.report.call_sid]

    async def metrics(self) -> Mapping[str, float]:
        async with self.client.get(f"{self.url}/metrics") as answer:
            parsed = text_string_to_metric_families(await answer.text())
        return {
            sample.name + "".join(sorted(sample.labels.values())): sample.value
            for family in parsed
            for sample in family.samples
        }

    async def ask(self, method: str, path: str, **body: Any) -> Any:
        async with self.client.request(
            method,
            f"{self.url}/api{path}",
            json=body or None if method == "GET" else body,
            headers={"Authorization": f"Bearer {TOKEN}"},
        ) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def hang_up(self, *calls: SimulatedCall) -> None:
        for call in calls:
            call.hang_up()
            await self.calls[call]
            await self.receiver.wait_for_type("call.ended", 30, call_sid=call.report.call_sid)


@asynccontextmanager
async def machine(
    directory: Path, workers: int = 2, server: str = "", whisper: str = "", max_calls: int = 1000
) -> AsyncIterator[Machine]:
    async with (
        NumberedWhisper() as numbered,
        Receiver(SECRET) as receiver,
        RestApi(ACCOUNT) as twilio,
        aiohttp.ClientSession(timeout=ALONE) as client,
    ):
        around = Around(
            directory,
            numbered.url,
            receiver.url,
            server=f'workers = {workers}\nadmin_token = "{TOKEN}"\n{server}',
            twilio=f'api_base_url = "{twilio.url}"',
            port=free_port(),
            whisper=whisper,
            max_calls=max_calls,
        )
        async with serving(around) as bridge:
            url = (await bridge.line("listening", START_S))["url"]
            found = Machine(bridge, receiver, numbered, twilio, client, around, url)
            try:
                yield found
            finally:
                for task in found.calls.values():
                    task.cancel()
                await asyncio.gather(*found.calls.values(), return_exceptions=True)


@pytest.mark.parametrize("workers", [2, 4])
async def test_calls_are_spread_evenly_and_every_line_says_whose_it_is(tmp_path: Path, workers: int) -> None:
    async with machine(tmp_path, workers) as bridge:
        calls = [await bridge.call() for _ in range(workers + 1)]
        shares = Counter(worker for call in calls for worker in bridge.carries(call))
        assert len(shares) == workers
        assert max(shares.values()) - min(shares.values()) == 1
        busiest = max(shares, key=lambda worker: shares[worker])
        (one, _) = [call for call in calls if bridge.carries(call) == [busiest]]
        others = [call for call in calls if call is not one]
        await bridge.hang_up(others[0])
        await until(lambda: len(bridge.lines("call_ended")) == 1)
        await asyncio.sleep(0.2)  # until the worker has said that it has a stream less
        (freed,) = bridge.carries(others[0])
        assert bridge.carries(await bridge.call()) == [freed]
        bridge.bridge.send(signal.SIGTERM)
        await bridge.hang_up(*[call for call in bridge.calls if call is not others[0]])
        assert await bridge.bridge.exit(30) == 0
        assert bridge.bridge.lines[-1]["event"] == "stopped"
        told = {line["worker"] for line in bridge.lines("call_ended")}
        assert told == set(range(1, workers + 1))


async def test_any_worker_answers_for_all(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        calls = [await bridge.call() for _ in range(4)]
        sids = [call.report.call_sid for call in calls]
        for _ in range(4):  # another worker each time
            assert (await bridge.metrics())["bridge_calls_live"] == 4
            assert [call["call_sid"] for call in (await bridge.ask("GET", "/calls"))["calls"]] == sids
            for sid in sids[:2]:
                assert (await bridge.ask("GET", f"/calls/{sid}"))["call"]["state"] == "live"
            assert {each["call_sid"] for each in (await bridge.ask("GET", "/deliveries"))["deliveries"]} == {
                *sids
            }
            assert (await bridge.ask("GET", "/numbers"))["numbers"] == []
            async with bridge.client.get(f"{bridge.url}/readyz") as ready:
                assert ready.status == 200
        for call in calls[:2]:  # one of each worker
            sid = call.report.call_sid
            for first in (True, False):
                detached = await bridge.ask("POST", f"/calls/{sid}/detach")
                assert detached == {"call_sid": sid, "detached": first}
            ended = await bridge.receiver.wait_for_type("call.ended", call_sid=sid)
            assert ended.data["reason"] == "detached"
        for sid in sids[2:]:
            assert (await bridge.ask("POST", "/deliveries/erase", call_sid=sid))["audio"]
            assert not list((tmp_path / "outbox" / "journal").glob(f"*/{sid}.*"))
        await until(lambda: len(bridge.lines("call_erased")) >= 2)
        counted = [(await bridge.metrics())["bridge_calls_totaldetached"] for _ in range(4)]
        assert counted == [2, 2, 2, 2]


async def test_a_call_is_attached_by_one_worker_and_streamed_to_the_other(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        elsewhere = Handler(url="https://voice.example.com/existing")
        voice = f"{bridge.url}/twilio/voice"
        call = SimulatedCall(
            ACCOUNT, voice, {"inbound": speech(range(200))}, public_url=PUBLIC_URL, handler=elsewhere
        )
        bridge.calls[bridge.twilio.add(call)] = asyncio.create_task(call.run())
        await until(lambda: call.status == "in-progress")
        path = f"/calls/{call.report.call_sid}/attach"
        told = await bridge.ask("POST", path)
        assert (told["already"], told["arrived"]) == (False, True)
        await until(lambda: len(bridge.lines("call_attached")) == 1)
        (asked,) = bridge.lines("call_attached")
        assert bridge.carries(call) == [3 - asked["worker"]]
        for _ in range(2):
            assert (await bridge.ask("POST", path))["already"]


async def test_a_token_that_comes_to_both_workers_at_once_is_admitted_once(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        signed = {"X-Twilio-Signature": ACCOUNT.signature(f"{PUBLIC_URL}/twilio/voice", FORM)}
        async with bridge.client.post(f"{bridge.url}/twilio/voice", data=FORM, headers=signed) as answer:
            assert answer.headers["Connection"] == "close"
            parameter = ET.fromstring(await answer.text()).find(".//Parameter")
        assert parameter is not None
        media = PUBLIC_URL.replace("https", "wss") + "/twilio/media"
        upgraded = {"X-Twilio-Signature": ACCOUNT.signature(media)}
        sockets = [
            await bridge.client.ws_connect(f"{bridge.url}/twilio/media", headers=upgraded) for _ in range(2)
        ]
        for number, each in enumerate(sockets):
            await each.send_str(start(parameter.attrib["value"], f"MZ{number:032x}"))
        done, waiting = await asyncio.wait(
            [asyncio.create_task(each.receive()) for each in sockets],
            timeout=START_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        assert [task.result().data for task in done] == [aiohttp.WSCloseCode.POLICY_VIOLATION]
        await until(lambda: bool(bridge.lines("stream_refused") and bridge.lines("stream_started")))
        (refused,) = bridge.lines("stream_refused")
        assert refused["why"] == "token_used"
        (began,) = bridge.lines("stream_started")
        assert (began["call_sid"], began["worker"]) == (CA, 3 - refused["worker"])
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_what_was_counted_never_goes_back_and_a_dead_worker_is_replaced(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        ended = [await bridge.call() for _ in range(2)]
        for call in ended:
            await bridge.receiver.wait_for_type("transcript.final", 30, call_sid=call.report.call_sid)
        await bridge.hang_up(*ended)
        before = await bridge.metrics()
        assert before["bridge_calls_totalhangup"] == 2
        pids = bridge.pids
        os.kill(pids[1], signal.SIGKILL)
        seen = [before]
        async with asyncio.timeout(START_S):
            while len(bridge.lines("worker_ready")) < 3:
                seen.append(await bridge.metrics())
        seen.append(await bridge.metrics())
        for name in ("bridge_calls_totalhangup", "bridge_finals_totalinbound", "bridge_tick_seconds_count"):
            values = [figures[name] for figures in seen]
            assert values == sorted(values), name
        assert seen[-1]["bridge_workers_lost_total"] == 1
        (lost,) = bridge.lines("worker_lost")
        assert (lost["worker"], lost["pid"], lost["how"]) == (1, pids[1], "was ended by SIGKILL")
        assert bridge.pids[1] != pids[1]
        both = [await bridge.call() for _ in range(2)]
        assert {worker for call in both for worker in bridge.carries(call)} == {1, 2}


@pytest.mark.parametrize(("whisper", "max_calls"), [("", 3), ("max_connections = 6", 1000)])
async def test_as_many_calls_are_taken_as_the_machine_may_have(
    tmp_path: Path, whisper: str, max_calls: int
) -> None:
    async with machine(tmp_path, whisper=whisper, max_calls=max_calls) as bridge:
        calls = [await bridge.call() for _ in range(3)]
        shares = Counter(worker for call in calls for worker in bridge.carries(call))
        assert sorted(shares.values()) == [1, 2]
        assert not bridge.lines("call_refused")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="takes a process its descriptors")
async def test_a_worker_that_cannot_be_started_is_tried_again_and_the_other_one_goes_on(
    tmp_path: Path,
) -> None:
    async with machine(tmp_path) as bridge:
        calls = [await bridge.call() for _ in range(2)]
        (victim,), (healthy,) = (bridge.carries(call) for call in calls)
        assert victim != healthy
        supervisor = bridge.bridge.process.pid
        limits = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, limits[1]))
        os.kill(bridge.pids[victim], signal.SIGKILL)
        await until(lambda: bool(bridge.lines("worker_not_started")))
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, limits)
        assert bridge.lines("worker_not_started")[0]["error"] == "Too many open files"
        async with asyncio.timeout(START_S):
            while len(bridge.lines("worker_ready")) < 3:
                await asyncio.sleep(0.02)
        assert bridge.carries(calls[1]) == [healthy]
        assert [line["worker"] for line in bridge.lines("worker_lost")] == [victim]
        assert (await bridge.metrics())["bridge_workers_lost_total"] >= 2


def children(pid: int) -> set[int]:
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks at processes through /proc")
async def test_one_that_dies_before_it_is_ready_ends_nobody_else_once_calls_were_taken(
    tmp_path: Path,
) -> None:
    async with machine(tmp_path) as bridge:
        first = set(bridge.pids.values())
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        supervisor = bridge.bridge.process.pid
        await until(lambda: len(children(supervisor) - first) == 2)
        os.kill(max(children(supervisor) - first), signal.SIGKILL)
        async with asyncio.timeout(START_S):
            while len(bridge.lines("worker_ready")) < 4:
                await asyncio.sleep(0.02)
        assert len(bridge.lines("worker_lost")) == 3
        async with bridge.client.get(f"{bridge.url}/readyz") as ready:
            assert ready.status == 200


@pytest.mark.parametrize("hanging", [{1}, {2}, {1, 2}, set()])
async def test_of_workers_those_that_hang_are_killed_unless_all_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hanging: set[int]
) -> None:
    monkeypatch.setattr("bridge.workers.supervisor.LOOK_S", 0.001)
    killed: set[int] = set()
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        supervisor = Supervisor(config, listener, None)
        for number in (1, 2):
            worker = supervisor._children[number] = Worker(number, 0.0)
            worker.ready = True
            monkeypatch.setattr(worker, "hangs", lambda number=number: number in hanging)
            monkeypatch.setattr(worker, "kill", lambda number=number: killed.add(number))
        looking = asyncio.create_task(supervisor._look_after_them())
        await asyncio.sleep(0.02)
        supervisor._gone.set()  # all have ended: so does this
        await asyncio.wait_for(looking, 5)
    assert killed == (hanging if len(hanging) == 1 else set())


async def test_a_worker_that_is_told_to_end_does_so_and_another_one_comes(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        os.kill(bridge.pids[2], signal.SIGTERM)
        async with asyncio.timeout(START_S):
            while len(bridge.lines("worker_ready")) < 3:
                await asyncio.sleep(0.02)
        (lost,) = bridge.lines("worker_lost")
        assert (lost["worker"], lost["how"]) == (2, "ended with exit code 0")
        assert (await bridge.metrics())["bridge_workers_lost_total"] == 0


async def test_a_signal_to_all_processes_is_one_signal_and_the_second_one_hurries(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        calls = [await bridge.call() for _ in range(2)]
        for pid in bridge.pids.values():  # as systemd does
            os.kill(pid, signal.SIGTERM)
        bridge.bridge.send(signal.SIGTERM)
        await until(lambda: len(bridge.lines("draining")) == 2)
        async with bridge.client.get(f"{bridge.url}/readyz") as ready:
            assert ready.status == 503
        for call in calls:
            await bridge.receiver.wait_for_type("transcript.final", call_sid=call.report.call_sid)
        assert not bridge.lines("call_let_go")
        bridge.bridge.send(signal.SIGTERM)
        assert await bridge.bridge.exit(30) == 0
        assert len(bridge.lines("call_let_go")) == 2


async def test_workers_are_gone_with_their_supervisor(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        os.kill(bridge.bridge.process.pid, signal.SIGKILL)
        # Their log is closed when the last of them is gone.
        assert await bridge.bridge.exit(2) == -signal.SIGKILL
        socket.create_server(("127.0.0.1", bridge.around.port)).close()


async def served(around: Around, **environment: str) -> tuple[int | None, str]:
    """The exit code of a bridge that cannot start, and what it says."""
    command = (sys.executable, "-m", "bridge", "serve", "--config", str(around.config()))
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, **environment}
    )
    async with asyncio.timeout(START_S):
        _, told = await process.communicate()
    return process.returncode, told.decode()


async def test_what_cannot_start_says_so_in_one_sentence(tmp_path: Path) -> None:
    around = Around(
        tmp_path, "ws://127.0.0.1:9/", "http://127.0.0.1:9/", server="workers = 2", port=free_port()
    )
    with socket.create_server(("127.0.0.1", around.port)):
        code, told = await served(around)
        assert (code, told.count("\n")) == (1, 1)
        assert f"cannot listen on 127.0.0.1 port {around.port}" in told
    outbox = Sqlite(tmp_path / "outbox")
    await outbox.open()
    try:
        code, told = await served(around)
        assert (code, told.count("\n")) == (1, 1)
        assert "whisper-bridge: " in told
        assert "is in use by another whisper-bridge" in told
    finally:
        await outbox.close()


async def test_what_a_worker_cannot_use_is_said_once_by_the_one_who_started_it(tmp_path: Path) -> None:
    (tmp_path / "outbox").mkdir()
    (tmp_path / "outbox" / "journal").touch()
    around = Around(tmp_path, "ws://127.0.0.1:9/", "http://127.0.0.1:9/", server="workers = 4")
    code, told = await served(around)
    assert code == 2
    (sentence,) = [line for line in told.splitlines() if not line.startswith("{")]
    assert sentence.startswith("whisper-bridge: Audio cannot be kept in ")
    assert "Traceback" not in told


async def test_workers_that_die_at_once_are_not_started_for_ever(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import sys\nif 'bridge.workers' in sys.orig_argv:\n    sys.exit(7)\n"
    )
    around = Around(tmp_path, "ws://127.0.0.1:9/", "http://127.0.0.1:9/", server="workers = 2")
    code, told = await served(around, PYTHONPATH=str(tmp_path / "site"))
    assert code == 1
    assert told.count("before it could take calls: its log says why") == 1


async def test_the_demo_and_the_simulator_work_with_workers(tmp_path: Path) -> None:
    async with machine(tmp_path) as bridge:
        await _play(bridge)
        await until(lambda: len(bridge.lines("call_ended")) == 4, timeout=30)
        assert {line["worker"] for line in bridge.lines("call_ended")} == {1, 2}
    child = Child("serve", "--config", str(bridge.around.config()))
    try:
        assert (await child.start(START_S))["port"] == bridge.around.port
    finally:
        await child.stop()


async def _play(bridge: Machine) -> None:
    """`whisper-bridge simulate` at a bridge."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bridge", "simulate", f"{bridge.url}/twilio/voice", str(sounds.CALLER),
        "--config", str(bridge.around.config()), "--calls", "4", "--hangup-ms", "1500", "--report", "json",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(START_S):
        told, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(told)["ok"] == 4
