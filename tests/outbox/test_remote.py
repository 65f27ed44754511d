"""An outbox that another process has, seen from here: what is asked, what waits, and what happens when nobody answers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.outbox import remote, wire
from bridge.outbox.host import Host
from bridge.outbox.outbox import Outbox, OutboxDown, Outgoing, Stats
from bridge.outbox.remote import remote_outbox
from bridge.outbox.sqlite import Sqlite
from tests.outbox.events import A, event

NOTHING = Stats(pending=0, oldest_age_s=0.0, lanes_in_backoff=0, dead=0)


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    store = Sqlite(tmp_path / "outbox")
    await store.open()
    async with Host(store) as host:
        opened = remote_outbox(await host.connect())
        await opened.open()
        yield opened
        await opened.close()
    await store.close()


@pytest.fixture
async def silence() -> AsyncIterator[tuple[Outbox, socket.socket]]:
    """An outbox whose host does not answer, and the host's end of the socket."""
    ours, theirs = socket.socketpair()
    opened = remote_outbox(ours)
    await opened.open()
    yield opened, theirs
    theirs.close()
    await opened.close()


async def test_who_waits_for_an_answer_too_long_is_told(
    silence: tuple[Outbox, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_S", 0.01)
    with pytest.raises(OutboxDown, match="did not answer within"):
        await silence[0].stats()


async def test_who_waits_for_lanes_learns_that_the_host_is_gone(
    silence: tuple[Outbox, socket.socket],
) -> None:
    outbox, theirs = silence
    outbox.wake.clear()
    theirs.close()
    async with asyncio.timeout(5):
        await outbox.wake.wait()
    with pytest.raises(OutboxDown, match="gone"):
        await outbox.claim("me", 1, 30)


async def test_no_more_than_so_many_requests_wait(
    silence: tuple[Outbox, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox, theirs = silence
    monkeypatch.setattr(remote, "UNDER_WAY", 3)
    asked = [asyncio.create_task(outbox.stats()) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.gather(asked[0], return_exceptions=True)
    with pytest.raises(OutboxDown, match="does not keep up: 3 requests"):
        await outbox.stats()
    theirs.close()
    for waiting in asked[1:]:
        with pytest.raises(OutboxDown, match="gone"):
            await waiting


async def test_an_outbox_that_is_not_open_or_not_any_more_says_so(outbox: Outbox) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    other = remote_outbox(ours)
    with pytest.raises(OutboxDown, match="not open"):
        await other.stats()
    await other.close()
    with pytest.raises(OutboxDown, match="cannot be reached"):
        await other.open()
    await outbox.close()
    await outbox.close()
    with pytest.raises(OutboxDown, match="not open"):
        await outbox.own_call("CA1", "me", b"")


async def test_closing_waits_for_what_was_asked(outbox: Outbox) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    publishing = asyncio.create_task(outbox.publish(lease, [event(1)], {}))
    await asyncio.sleep(0)
    await outbox.close()
    await publishing


async def test_a_request_that_is_too_long_is_refused_and_the_next_one_answered(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = await outbox.own_call("CA1", "me", b"")
    monkeypatch.setattr(wire, "LONGEST", 1000)
    with pytest.raises(ValueError, match="bytes are too many"):
        await outbox.publish(lease, [Outgoing(A, 1, "evt_1", "t", b"x" * 1000)], {})
    assert await outbox.stats() == NOTHING


async def test_an_outbox_has_no_other_methods(outbox: Outbox) -> None:
    with pytest.raises(AttributeError, match="no_such"):
        outbox.no_such  # type: ignore[attr-defined]  # noqa: B018 - that is the point
