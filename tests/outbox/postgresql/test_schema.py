import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.errors import ConfigError
from bridge.outbox.lease import CallLease
from bridge.outbox.outbox import Line, OutboxDown, Outgoing, Selection
from bridge.outbox.postgresql import schema
from bridge.outbox.postgresql.postgres import Postgres
from tests.doubles.postgres import PostgresServer

OLD_SCHEMA = Path(__file__).with_name("schema_1.sql").read_text(encoding="utf-8")
STATEMENT = re.compile(r"^create function .*?\$\$;$|^create .*?;$", re.MULTILINE | re.DOTALL)


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
    with pytest.raises(
        OutboxDown,
        match=rf"newer whisper-bridge \(version {schema.VERSION + 1}, this one knows {schema.VERSION}\)",
    ):
        await store.open()
    await postgres_server.query("update whisper_bridge.version set version = version - 1")
    await store.open()
    await store.close()


CATALOGUE = """
    select 'column', table_name, column_name, data_type, is_nullable, column_default, collation_name
    from information_schema.columns where table_schema = 'whisper_bridge'
    union all
    select 'index', tablename, indexname, indexdef, null, null, null from pg_indexes where schemaname = 'whisper_bridge'
    union all
    select 'function', proname, pg_get_function_identity_arguments(oid), prosrc, null, null, null from pg_proc
    where pronamespace = 'whisper_bridge'::regnamespace
    union all
    select 'constraint', conname, pg_get_constraintdef(oid), null, null, null, null from pg_constraint
    where connamespace = 'whisper_bridge'::regnamespace
    union all
    select 'options', relname, array_to_string(reloptions, ' '), null, null, null, null from pg_class
    where relnamespace = 'whisper_bridge'::regnamespace and relkind = 'r'
    order by 1, 2, 3"""


async def test_tables_of_the_first_version_are_upgraded_with_all_that_is_in_them(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def catalogue() -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await postgres_server.query(CATALOGUE)]

    stores = [Postgres(postgres_url) for _ in range(4)]
    await stores[0].open()
    fresh = await catalogue()
    await stores[0].close()
    await postgres_server.query("drop schema whisper_bridge cascade")
    await postgres_server.query("create schema whisper_bridge")
    for statement in STATEMENT.findall(OLD_SCHEMA):
        await postgres_server.query(statement)
    for statement in (
        "insert into whisper_bridge.version values (1)",
        """insert into whisper_bridge.calls values
             ('CA1', 'me', 3, 4, false, false, true, 'about', 80.5, 90.5),
             ('CA2', 'me', 1, 1, true, false, true, 'about', 80.5, 90.5)""",
        "insert into whisper_bridge.watermarks values ('CA1', 'inbound', 8000)",
        "insert into whisper_bridge.lines values ('CA1', 1, 'inbound', 0, 1, 'one')",
    ):
        await postgres_server.query(statement)
    await asyncio.gather(*(store.open() for store in stores))
    assert await catalogue() == fresh
    assert await postgres_server.query("select * from whisper_bridge.version") == [(schema.VERSION,)]
    store = stores[0]
    assert [(call.call_sid, call.owner) for call in await store.orphans(10, 50)] == [("CA1", "me")]
    lease = await store.own_call("CA1", "new", b"", node="n1", only_from="me")
    assert lease == CallLease("CA1", "new", 4, 4, {"inbound": 8000}, ended=False, meta=b"about")
    assert await store.transcript("CA1") == [Line(1, "inbound", 0, 1, "one")]
    assert await store.orphans(10, 50) == []
    await asyncio.gather(*(store.close() for store in stores))


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
