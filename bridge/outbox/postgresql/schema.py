"""The outbox's schema in PostgreSQL, and whether that server keeps what it is given."""

import re
from importlib.resources import files

from bridge import log
from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.postgresql.lanes import mend
from bridge.outbox.postgresql.pool import Connection

VERSION = 2
"""Of the schema, in its table `version`."""

SCHEMA = files("bridge.outbox.postgresql").joinpath("schema.sql").read_text(encoding="utf-8")

FROM_1 = r"""
alter table whisper_bridge.calls add column node text collate "C" not null default '';
alter table whisper_bridge.calls add column heir text not null default '';
drop function whisper_bridge.own_call(double precision, text, text, bytea, text);
""" + "".join(
    re.findall(
        r"^create (?:index calls_open|table whisper_bridge\.(?:nodes|attachments)) .*?;$"
        r"|^create function whisper_bridge\.(?:newest|beat|silent|own_call)\(.*?\$\$;$",
        SCHEMA,
        re.MULTILINE | re.DOTALL,
    )
)
"""From the first version. Its calls have no node: bridges of that version say nothing of their lives."""

OLDEST_SERVER = 150_000
"""PostgreSQL 15: the oldest that is tested, and still mended."""

LOCK = 0x77686973
"""Any number that nothing else in the database takes an advisory lock on: "whis" in ASCII."""

MENDED = 5000
"""Lanes in one statement, so that none takes long: some 100 ms."""

_log = log.get(__name__)


async def prepare(connection: Connection, *, at: float | None, accept_loss: bool) -> None:
    """Check the server, make the tables if they are not there, and resume what was paused.

    Raises `ConfigError` for a server that is too old or may lose what it was given, unless `accept_loss`,
    and `OutboxDown` for tables of a newer version. May be run again, and by many at the same time.
    """
    await _check(connection, accept_loss=accept_loss)
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1)", LOCK)
        version = await _version(connection)
        if version is None:
            if not await connection.fetchval("select to_regnamespace('whisper_bridge') is not null"):
                await connection.execute("create schema whisper_bridge")
            await connection.execute(SCHEMA)
            await connection.execute("insert into whisper_bridge.version values ($1)", VERSION)
        elif version > VERSION:
            raise OutboxDown(
                f"The tables in PostgreSQL were made by a newer whisper-bridge (version {version}, this one knows {VERSION}): upgrade this one."
            )
        elif version == 1:
            await connection.execute(FROM_1)
            await connection.execute("update whisper_bridge.version set version = $1", VERSION)
    await connection.execute("update whisper_bridge.endpoints set paused = null where paused is not null")
    while await mend(connection, limit=MENDED, at=at) == MENDED:
        pass


async def _version(connection: Connection) -> int | None:
    if await connection.fetchval("select to_regclass('whisper_bridge.version') is null"):
        return None
    version: int = await connection.fetchval("select max(version) from whisper_bridge.version")
    return version


async def _check(connection: Connection, *, accept_loss: bool) -> None:
    row = await connection.fetchrow(
        """select current_setting('server_version_num')::int as version,
             current_setting('server_version') as named,
             current_setting('synchronous_commit') as commit,
             current_setting('fsync') = 'on' as fsync,
             current_setting('synchronous_standby_names') <> '' as wanted,
             -- Without the right to see it, a standby's state is null.
             (select count(*) from pg_stat_replication where coalesce(sync_state, 'sync') in ('sync', 'quorum')) > 0
               as attached"""
    )
    if row["version"] < OLDEST_SERVER:
        raise ConfigError(
            f"outbox.url: PostgreSQL 15 or newer is needed, and this is {row['named'].split()[0]}."
        )
    if row["commit"] in {"off", "local"} and not accept_loss:
        raise ConfigError(
            f"outbox.url: PostgreSQL has synchronous_commit = {row['commit']}, so events would be lost with its machine: "
            "set it to on for this database or user, or set outbox.accept_loss = true."
        )
    if row["commit"] in {"off", "local"} or not row["fsync"]:
        _log.warning("outbox_may_lose", synchronous_commit=row["commit"], fsync=row["fsync"])
    if not row["wanted"] or not row["attached"]:
        _log.warning("outbox_without_standby", configured=row["wanted"], attached=row["attached"])
