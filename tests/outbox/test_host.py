"""A host and its clients: killed, slow, many, and of no good."""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs

from bridge.errors import BridgeError, ConfigError, UsageError
from bridge.outbox import host as hosting
from bridge.outbox import wire
from bridge.outbox.host import Host
from bridge.outbox.lease import Erased, Fenced
from bridge.outbox.outbox import Line, Outbox, OutboxDown, OutboxFull, OutboxHeld, Selection, Stats
from bridge.outbox.remote import remote_outbox
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import event, fill

CALL = Selection(call_sid="CA1")

HOST = """
import asyncio, socket, sys
from pathlib import Path
from bridge import loop
from bridge.outbox.host import Host
from bridge.outbox.sqlite import Sqlite

async def main(directory, control):
    store = Sqlite(Path(directory))
    await store.open()
    async with Host(store) as host:
        with await host.connect() as client:
            socket.send_fds(control, [b"!"], [client.fileno()])
        control.setblocking(False)
        await asyncio.get_running_loop().sock_recv(control, 1)

with asyncio.Runner(loop_factory=loop.factory()) as runner:
    runner.run(main(sys.argv[1], socket.socket(fileno=int(sys.argv[2]))))
"""

CLIENT = """
import asyncio, socket, sys
from bridge import loop
from bridge.outbox.remote import remote_outbox
from tests.outbox.events import event

async def main(connection):
    outbox = remote_outbox(connection)
    await outbox.open()
    lease = await outbox.own_call("CA1", "me", b"", node="n1")
    await outbox.publish(lease, [event(1)], {})
    print("stored", flush=True)
    n = 1
    while True:
        n += 1
        await outbox.publish(lease, [event(n)], {})

with asyncio.Runner(loop_factory=loop.factory()) as runner:
    runner.run(main(socket.socket(fileno=int(sys.argv[1]))))
"""


@contextlib.contextmanager
def child(program: str, end: socket.socket, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that has this end of a socket, which is closed here; killed in the end."""
    command = [sys.executable, "-c", program, *arguments, str(end.fileno())]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, pass_fds=[end.fileno()], stdout=subprocess.PIPE, cwd=root) as process:
        end.close()
        try:
            yield process
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def connected(host: Host) -> AsyncIterator[Outbox]:
    outbox = remote_outbox(await host.connect())
    await outbox.open()
    yield outbox
    await outbox.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Sqlite]:
    opened = Sqlite(tmp_path / "outbox")
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
async def host(store: Sqlite) -> AsyncIterator[Host]:
    async with Host(store) as entered:
        yield entered


class Wall:
    """An outbox that answers nothing until it is told to, or that answers with an error."""

    def __init__(self, error: Exception | None = None) -> None:
        self.open = asyncio.Event()
        self.error = error
        self.at_once = self.most = 0

    async def stats(self) -> Stats:
        if self.error is not None:
            raise self.error
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        await self.open.wait()
        self.at_once -= 1
        return Stats(1, 2.5, 3, 4)


def walled(wall: Wall) -> Host:
    return Host(cast("Outbox", wall))


async def test_what_a_host_stored_before_it_was_killed_is_there_and_the_rest_can_be_published_again(
    tmp_path: Path,
) -> None:
    ours, theirs = socket.socketpair()
    with ours, child(HOST, theirs, str(tmp_path / "outbox")) as process:
        _, descriptors, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        outbox = remote_outbox(socket.socket(fileno=descriptors[0]))
        await outbox.open()
        lease = await outbox.own_call("CA1", "me", b"")
        stored = 0
        with contextlib.suppress(OutboxDown):
            while True:
                await outbox.publish(lease, [event(stored + 1)], {})
                stored += 1
                if stored == 20:
                    process.kill()
        with pytest.raises(OutboxDown, match="gone"):
            await outbox.stats()
        await outbox.close()
        await asyncio.to_thread(process.wait)
    again = Sqlite(tmp_path / "outbox")
    await again.open()
    try:
        assert stored <= len(await again.records(CALL, 1000)) <= stored + 1
        await fill(again, *(event(n) for n in range(1, stored + 2)))
        assert len(await again.records(CALL, 1000)) == stored + 1
    finally:
        await again.close()


async def test_a_client_that_is_killed_in_the_middle_of_a_publish_disturbs_nobody(
    store: Sqlite, host: Host
) -> None:
    async with connected(host) as other:
        with child(CLIENT, await host.connect()) as process:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"stored\n"
            await fill(other, event(1, call="CA2"), call="CA2")
            process.kill()
            await asyncio.to_thread(process.wait)
        async with asyncio.timeout(5):
            while len(host._clients) > 1:
                await asyncio.sleep(0.001)
        await other.died("n1")
        assert [orphan.call_sid for orphan in await other.orphans(10, 9)] == ["CA1", "CA2"]
        sequences = [record.sequence for record in await store.records(CALL, 100_000)]
        assert sequences == list(range(len(sequences), 0, -1))
        assert sequences


@pytest.mark.parametrize(
    ("raised", "received"),
    [
        (Fenced.call("CA1"), Fenced),
        (Erased("The call CA1 was erased."), Erased),
        (OutboxDown("down"), OutboxDown),
        (OutboxFull("full"), OutboxFull),
        (OutboxHeld("held"), OutboxHeld),
        (ConfigError("bad"), ConfigError),
        (UsageError("bad"), BridgeError),
        (ValueError("a hole"), ValueError),
        (UnicodeDecodeError("utf-8", b"", 0, 1, "bad"), ValueError),
    ],
)
async def test_errors_come_back_as_themselves(raised: Exception, received: type[Exception]) -> None:
    async with walled(Wall(raised)) as host, connected(host) as outbox:
        with capture_logs() as logs, pytest.raises(received) as caught:
            await outbox.stats()
        assert type(caught.value) is received
        assert str(caught.value) == str(raised)
        assert logs == []


async def test_a_mistake_of_ours_is_logged_and_said_to_be_an_outage() -> None:
    async with walled(Wall(ZeroDivisionError("secret"))) as host, connected(host) as outbox:
        with capture_logs() as logs, pytest.raises(OutboxDown, match="failed at stats: see the log"):
            await outbox.stats()
        (line,) = logs
        assert (line["event"], line["method"]) == ("outbox_host_crashed", "stats")
        assert isinstance(line["exc_info"], ZeroDivisionError)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"GET / HTTP/1.1\r\n\r\n"])
async def test_a_client_that_sends_garbage_is_cut_off_and_no_other(
    host: Host, store: Sqlite, garbage: bytes
) -> None:
    await fill(store, event(1))
    async with connected(host) as other:
        with capture_logs() as logs, await host.connect() as client:
            client.setblocking(False)
            client.send(garbage)
            assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
        assert [line["event"] for line in logs] == ["outbox_client_cut_off"]
        assert (await other.stats()).pending == 1


async def test_a_request_that_cannot_be_understood_is_refused_and_the_next_one_answered(host: Host) -> None:
    loop = asyncio.get_running_loop()
    with await host.connect() as client:
        client.setblocking(False)
        with capture_logs() as logs:
            for number, (name, arguments) in enumerate([("beat", [5]), ("open", []), ("stats", [])]):
                client.send(wire.frame(number, name, arguments))
                (answer,) = wire.Frames().cut(await loop.sock_recv(client, 1000))
                assert wire.unpacked(answer)[:2] == (number, ("ValueError", "OutboxDown", "")[number])
        assert [line["event"] for line in logs] == ["outbox_host_crashed"]


async def test_a_client_gets_no_more_than_so_many_requests_worked_on_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hosting, "UNDER_WAY", 4)
    wall = Wall()
    async with walled(wall) as host, connected(host) as outbox:
        asked = [asyncio.create_task(outbox.stats()) for _ in range(50)]
        (client,) = host._clients
        async with asyncio.timeout(5):
            while client._reading or wall.at_once < 4:
                await asyncio.sleep(0)
        wall.open.set()
        assert await asyncio.gather(*asked) == [Stats(1, 2.5, 3, 4)] * 50
        assert wall.most == 4
        assert client._reading


async def test_for_a_client_that_does_not_read_not_much_is_kept(
    host: Host, store: Sqlite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosting, "UNDER_WAY", 4)
    await store.publish(
        await store.own_call("CA1", "me", b""), [], {}, lines=[Line(1, "inbound", 0, 1, "x" * 100_000)]
    )
    loop = asyncio.get_running_loop()
    with await host.connect() as slow:
        slow.setblocking(False)
        slow.sendall(b"".join(wire.frame(number, "transcript", ["CA1"]) for number in range(200)))
        (client,) = host._clients
        async with asyncio.timeout(10):
            while client._reading or client._tasks:
                await asyncio.sleep(0.001)
        assert client._transport.get_write_buffer_size() < 6 * 100_100
        async with connected(host) as other:
            assert len(await other.transcript("CA1")) == 1
        frames, numbers = wire.Frames(), set[int]()
        async with asyncio.timeout(20):
            while len(numbers) < 200:
                bodies = frames.cut(await loop.sock_recv(slow, 1_000_000))
                numbers |= {wire.unpacked(answer)[0] for answer in bodies}
        assert numbers == set(range(200))


async def test_leaving_cuts_clients_off_and_gives_up_what_they_asked() -> None:
    wall = Wall()
    async with asyncio.timeout(5), walled(wall) as host:
        outbox = remote_outbox(await host.connect())
        await outbox.open()
        asked = asyncio.create_task(outbox.stats())
        while not wall.at_once:
            await asyncio.sleep(0)
    with pytest.raises(OutboxDown, match="gone"):
        await asked
    await outbox.close()
    assert host._clients == set()


async def test_many_clients_publish_and_deliver_at_the_same_time_and_each_event_goes_once(host: Host) -> None:
    delivered: list[tuple[str, int]] = []

    async def work(number: int) -> None:
        me, call = f"w{number}", f"CA{number}"
        async with connected(host) as outbox:
            lease = await outbox.own_call(call, me, b"")
            for n in range(1, 11):
                await outbox.publish(lease, [event(n, call=call)], {})
                for lane in await outbox.claim(me, 5, 30):
                    for stored in await outbox.peek(lane):
                        delivered.append((lane.call_sid, stored.sequence))
                        await outbox.ack(lane, stored.position)
                    await outbox.release(lane)

    await asyncio.gather(*(work(number) for number in range(8)))
    async with connected(host) as outbox:
        for lane in await outbox.claim("last", 99, 30):
            delivered += [(lane.call_sid, stored.sequence) for stored in await outbox.peek(lane, 99)]
    assert len(delivered) == len(set(delivered)) == 80
    for number in range(8):
        sequences = [n for call, n in delivered if call == f"CA{number}"]
        assert sequences == sorted(sequences)


def test_a_result_that_is_too_long_is_an_error_of_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long:
        async def transcript(self, call_sid: str) -> list[Line]:
            return [Line(1, "inbound", 0, 1, call_sid * 500)]

    async def ask() -> None:
        async with Host(cast("Any", Long())) as host, connected(host) as outbox:
            with pytest.raises(ValueError, match="bytes are too many"):
                await outbox.transcript("CA1")
            assert msgspec.to_builtins(await outbox.transcript(""))[0]["text"] == ""

    monkeypatch.setattr(wire, "LONGEST", 1000)
    asyncio.run(ask())
