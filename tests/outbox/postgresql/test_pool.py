import asyncio
import builtins
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown, OutboxFull
from bridge.outbox.postgresql import address
from bridge.outbox.postgresql import pool as pool_module
from bridge.outbox.postgresql.pool import Connection, Pool
from tests.doubles.postgres import DATABASE, PASSWORD, USER, PostgresServer, several_hosts

CERTIFICATE = Path(__file__).parents[2] / "whisper" / "self-signed.pem"


async def nothing(_connection: Connection) -> None:
    pass


def value(sql: str) -> Callable[[Connection], Awaitable[Any]]:
    async def run(connection: Connection) -> Any:
        return await connection.fetchval(sql)

    return run


async def opened(url: str) -> Pool:
    pool = Pool(url)
    await pool.open(nothing)
    return pool


async def test_without_the_driver_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def no_driver(name: str, *rest: Any) -> Any:
        if name == "asyncpg":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_driver)
    with pytest.raises(ConfigError, match=r'pip install "whisper-bridge\[postgresql\]"'):
        await Pool("postgresql://localhost/d").open(nothing)


async def test_closed_it_says_so() -> None:
    pool = Pool("postgresql://localhost/d")
    await pool.close()
    with pytest.raises(OutboxDown, match="not open"):
        await pool.run(nothing)


async def test_a_url_of_no_use_is_an_error_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"outbox.url must have the form"):
        Pool("postgresql://u:hunter2@h:x/d")
    for parameter in ("sslmode=perhaps", "target_session_attrs=x&sslmode=verify-full"):
        with pytest.raises(ConfigError, match=r"outbox.url has a parameter"):
            await Pool(f"postgresql://localhost/d?{parameter}").open(nothing)
    for parameter in ("sslrootcert=/nowhere", f"sslrootcert={__file__}"):
        with pytest.raises(ConfigError, match="a file of sslrootcert, sslcert or sslkey cannot be used"):
            await Pool(f"postgresql://h/d?{parameter}").open(nothing)


@pytest.mark.parametrize(
    ("login", "database", "kind"),
    [
        (f"{USER}:hunter2", DATABASE, ConfigError),
        (f"nobody:{PASSWORD}", DATABASE, ConfigError),
        (f"{USER}:{PASSWORD}", "elsewhere", ConfigError),
    ],
)
async def test_who_is_not_let_in_is_told_in_one_sentence(
    postgres_server: PostgresServer, login: str, database: str, kind: type[Exception]
) -> None:
    with pytest.raises(kind) as caught:
        await opened(f"postgresql://{login}@127.0.0.1:{postgres_server.port}/{database}")
    told = str(caught.value)
    assert f"PostgreSQL at 127.0.0.1:{postgres_server.port} " in told
    assert not any(word in told for word in ("hunter2", PASSWORD, USER + ":", "nobody", "elsewhere", "\n"))


async def test_who_is_elsewhere_is_not_trusted_without_a_certificate(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address, "_is_here", lambda _host: False)
    url = own_server.url.replace("127.0.0.1", "localhost")
    with pytest.raises(ConfigError, match="offers no TLS"):
        await opened(url)
    await own_server.use_tls(CERTIFICATE.read_text())
    with pytest.raises(ConfigError, match=r"a certificate that is not trusted \(self.signed certificate\)"):
        await opened(url)
    for trusting in ("sslrootcert={0}", "sslmode=require", "sslmode=verify-full&sslrootcert={0}"):
        pool = await opened(f"{url}?{trusting.format(CERTIFICATE)}")
        assert await pool.run(value("select ssl from pg_stat_ssl where pid = pg_backend_pid()"))
        await pool.close()


async def test_nobody_listens(unused_tcp_port: int) -> None:
    with pytest.raises(OutboxDown, match="nothing listens there"):
        await opened(f"postgresql://u:hunter2@127.0.0.1:{unused_tcp_port}/d")
    with pytest.raises(OutboxDown, match=r"no-such-host.invalid:5432 cannot be used now"):
        await opened("postgresql://u:hunter2@no-such-host.invalid/d?sslmode=disable")


async def test_a_dead_host_does_not_use_up_the_time_of_the_others(own_server: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = several_hosts([own_server]).replace("@", f"@127.0.0.1:{silent.getsockname()[1]},")
        began = time.monotonic()
        pool = await opened(url)
        assert await pool.run(value("select 1")) == 1
        assert time.monotonic() - began < pool_module.CONNECT_S
        await pool.close()


async def test_a_statement_that_was_refused_leaves_the_connection_usable(postgres_url: str) -> None:
    pool = await opened(postgres_url)
    process = await pool.run(value("select pg_backend_pid()"))
    with pytest.raises(OutboxDown, match="UndefinedTableError"):
        await pool.run(value("select * from nowhere"))
    with pytest.raises(OutboxFull):
        await pool.run(value("do $$ begin raise exception using errcode = '53100'; end $$"))
    assert await pool.run(value("select pg_backend_pid()")) == process
    await pool.close()


async def test_a_server_that_takes_no_writes_any_more_is_left(postgres_url: str) -> None:
    pool = await opened(postgres_url)
    process = await pool.run(value("select pg_backend_pid()"))
    with pytest.raises(OutboxDown, match="takes no writes"):
        await pool.run(value("do $$ begin raise exception using errcode = '25006'; end $$"))
    assert await pool.run(value("select pg_backend_pid()")) != process
    await pool.close()


async def test_who_gives_up_does_not_stop_what_was_asked_for(postgres_url: str) -> None:
    pool = await opened(postgres_url)
    done = asyncio.Event()
    waiting = asyncio.create_task(pool.run(value("select pg_sleep(0.1)"), done.set))
    await asyncio.sleep(0)
    waiting.cancel()
    await pool.close()
    assert done.is_set(), "closing waits for it"


async def test_what_waits_has_a_bound(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "WAITING", 1)
    pool = await opened(postgres_url)
    first = asyncio.create_task(pool.run(value("select pg_sleep(0.1)")))
    await asyncio.sleep(0)
    with pytest.raises(OutboxDown, match="does not keep up"):
        await pool.run(value("select 1"))
    await first
    await pool.close()


async def test_after_a_restart_it_goes_on(own_server: PostgresServer) -> None:
    pool = await opened(own_server.url)
    await asyncio.gather(*(pool.run(value("select pg_sleep(0.05)")) for _ in range(pool_module.CONNECTIONS)))
    await own_server.stop()
    with pytest.raises(OutboxDown):
        await pool.run(value("select 1"))
    await own_server.start()
    answers = await asyncio.gather(
        *(pool.run(value("select 1")) for _ in range(2 * pool_module.CONNECTIONS)), return_exceptions=True
    )
    assert answers[-1] == 1
    assert {type(answer) for answer in answers} <= {int, OutboxDown}
    await pool.close()


async def test_a_machine_that_says_nothing_holds_nobody_up_for_long(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CONNECT_S", "ACQUIRE_S", "COMMAND_S"):
        monkeypatch.setattr(pool_module, name, 0.5)
    pool = await opened(own_server.url)
    await own_server.freeze()
    began = time.monotonic()
    answers = await asyncio.gather(*(pool.run(value("select 1")) for _ in range(20)), return_exceptions=True)
    assert {str(answer).rpartition(": ")[2] for answer in answers} == {"no answer in time."}
    assert time.monotonic() - began < 2.5
    await own_server.thaw()
    assert await pool.run(value("select 1")) == 1
    await pool.close()


async def test_a_standby_is_not_taken_for_the_primary(own_server: PostgresServer) -> None:
    standby = await own_server.standby()
    try:
        pool = await opened(several_hosts([standby, own_server]))
        assert await pool.run(value("select pg_is_in_recovery()")) is False
        await pool.close()
        with pytest.raises(OutboxDown, match="takes no writes"):
            await opened(standby.url)
    finally:
        await standby.remove()
