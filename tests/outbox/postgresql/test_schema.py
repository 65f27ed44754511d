import asyncio

import pytest
from structlog.testing import capture_logs

from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown, Outgoing, Selection
from bridge.outbox.postgresql import schema
from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer


async def test_many_may_start_at_once_on_an_empty_database(postgres_url: str) -> None:
    stores = [Postgres(postgres_url) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    assert [(await store.stats()).pending for store in stores] == [0] * 4
    await asyncio.gather(*(store.close() for store in stores))


async def test_tables_of_a_newer_version_are_left_alone(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    store = Postgres(postgres_url)
    await store.open()
    await store.close()
    await postgres_server.query("update whisper_bridge.version set version = version + 1")
    with pytest.raises(OutboxDown, match=r"newer whisper-bridge \(version 2, this one knows 1\)"):
        await store.open()
    await postgres_server.query("update whisper_bridge.version set version = 1")
    await store.open()
    await store.close()


@pytest.mark.parametrize("commit", ["off", "local"])
async def test_a_server_that_may_lose_what_it_confirmed_is_refused(postgres_url: str, commit: str) -> None:
    url = f"{postgres_url}?synchronous_commit={commit}"
    with pytest.raises(ConfigError, match=f"synchronous_commit = {commit}.*accept_loss = true"):
        await Postgres(url).open()
    store = Postgres(url, accept_loss=True)
    with capture_logs() as lines:
        await store.open()
    await store.close()
    assert [line["synchronous_commit"] for line in lines if line["event"] == "outbox_may_lose"] == [commit]


async def test_a_server_that_is_too_old_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "OLDEST_SERVER", 990_000)
    with pytest.raises(ConfigError, match="PostgreSQL 15 or newer is needed"):
        await Postgres(postgres_url).open()


async def test_it_says_whether_a_standby_has_everything_too(own_server: PostgresServer) -> None:
    async def warned() -> list[tuple[bool, bool]]:
        store = Postgres(own_server.url)
        with capture_logs() as lines:
            await store.open()
        await store.close()
        return [
            (line["configured"], line["attached"])
            for line in lines
            if line["event"] == "outbox_without_standby"
        ]

    assert await warned() == [(False, False)]
    standby = await own_server.standby()
    try:
        assert await warned() == []
    finally:
        await standby.remove()


@pytest.mark.usefixtures("postgres_url")
async def test_a_role_with_a_schema_of_its_own_is_all_it_takes(postgres_server: PostgresServer) -> None:
    port = postgres_server.port
    await postgres_server.query("create role plain login password 'plain-secret'")
    await postgres_server.query("revoke create on database postgres from public")
    plain = Postgres(f"postgresql://plain:plain-secret@127.0.0.1:{port}/postgres")
    try:
        with pytest.raises(ConfigError, match=r"grant it, as deploy/README.md says"):
            await plain.open()
        await postgres_server.query("create schema whisper_bridge authorization plain")
        await plain.open()
        await plain.own_call("CA1", "me", b"")
        await plain.close()
    finally:
        await postgres_server.query("drop schema if exists whisper_bridge cascade")
        await postgres_server.query("drop role plain")


async def test_a_start_resumes_what_was_paused_and_leaves_leases(postgres_url: str) -> None:
    now = 1000.0
    one, two = Postgres(postgres_url, lambda: now), Postgres(postgres_url, lambda: now)
    await one.open()
    for call, endpoint in (("CA1", "https://a.example/"), ("CA2", "https://b.example/")):
        lease = await one.own_call(call, "me", b"")
        await one.publish(lease, [Outgoing(endpoint, 1, call, "t", b"")], {})
    await one.pause("https://a.example/", "status 410")
    (held,) = await one.claim("me", 10, 30)
    await two.open()
    assert [lane.call_sid for lane in await two.claim("you", 10, 30)] == ["CA1"]
    await one.ack(held, 1)
    await one.close()
    await two.close()


async def test_a_lane_that_would_wait_for_ever_is_due(postgres_url: str) -> None:
    ahead = Postgres(postgres_url, lambda: 1_000_000.0)
    await ahead.open()
    lease = await ahead.own_call("CA1", "me", b"")
    await ahead.publish(lease, [Outgoing("https://a.example/", 1, "e", "t", b"")], {})
    await ahead.close()
    behind = Postgres(postgres_url, lambda: 1000.0)
    await behind.open()
    assert await behind.next_due() == 0
    (record,) = await behind.records(Selection(), 10)
    assert record.due_at == 1000
    await behind.close()
