"""Connections to PostgreSQL: a few of them, bounded waits, and after a failover those of the new primary."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, Protocol, TypeVar

import msgspec

from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown
from bridge.outbox.postgresql.address import Address
from bridge.outbox.postgresql.trouble import READ_ONLY, in_words

T = TypeVar("T")

CONNECTIONS = 8
"""At most: some 5,000 short statements each second, and twelve bridges fit into PostgreSQL's default of 100."""

CONNECT_S = 2.0
"""A host that does not answer is down; the others are asked at the same time."""

ACQUIRE_S = 3.0
"""For a connection that is free or new: a new one, and a little."""

COMMAND_S = 3.0
"""For one statement and its commit, a synchronous standby's answer included."""

CLOSE_S = 5.0
WAITING = 4096
"""Operations that may wait for a connection; beyond it, callers are told that the outbox is down."""


class Connection(Protocol):
    """What is used of the driver's connection."""

    async def execute(self, query: str, *args: Any) -> str:
        """Run a statement."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """All rows."""

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """The first row, or None."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """The first row's first value."""

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """Statements that are committed together."""


def as_json(value: Any) -> str:
    """For an argument of many values. Of arrays but those of texts, the driver asks the server what they are."""
    return msgspec.json.encode(value).decode()


class Pool:
    """Runs operations, each on a connection of its own."""

    def __init__(self, url: str) -> None:
        try:
            self.address = Address.parse(url)
        except ValueError as error:
            raise ConfigError(f"outbox.url {error}.") from None
        self._options: dict[str, Any] = {}
        self._pool: Any = None
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self, prepare: Callable[[Connection], Awaitable[None]]) -> None:
        """Connect, and run `prepare`. Raises `ConfigError` and `OutboxDown`; may be tried again then."""
        try:
            import asyncpg  # noqa: PLC0415 - an extra: who stores on one machine needs none
        except ImportError:
            raise ConfigError(
                'outbox.url: PostgreSQL needs the extra "postgresql": pip install "whisper-bridge[postgresql]".'
            ) from None
        try:
            self._options = self.address.options()
        except OSError as error:  # ssl.SSLError is one
            reason = error.strerror if type(error).__module__ == "builtins" else "it is no certificate or key"
            raise ConfigError(
                f"outbox.url: a file of sslrootcert, sslcert or sslkey cannot be used: {reason}."
            ) from None
        self._pool = asyncpg.create_pool(
            min_size=0,
            max_size=CONNECTIONS,
            connect=self._connect,
            reset=_keep,
        )
        try:
            await self._pool
            await self._attempt(self._pool, prepare, opening=True)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Let what runs come to its end, then disconnect. May be called twice."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        if self._running:
            await asyncio.wait(self._running)
        with suppress(Exception):  # who leaves needs no answer
            async with asyncio.timeout(CLOSE_S):
                await pool.close()
        pool.terminate()

    async def run(
        self, operation: Callable[[Connection], Awaitable[T]], committed: Callable[[], None] | None = None
    ) -> T:
        """Run `operation`; `committed` is called then, also when the caller has given up by that time.

        A statement by itself commits by itself. Raises what the operation raises, and `OutboxFull` or
        `OutboxDown` for every trouble of PostgreSQL: then nothing was changed, or it is not known to be.
        """
        if self._pool is None:
            raise OutboxDown("The outbox is not open.")
        if len(self._running) >= WAITING:
            raise OutboxDown(
                f"PostgreSQL at {self.address} does not keep up: {WAITING} operations wait for it."
            )
        # Cancelling a statement takes a second connection, and leaves open what became of it.
        task = asyncio.create_task(self._attempt(self._pool, operation, committed))
        self._running.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # who asked may have given up: then nobody else looks at it

    async def _attempt(
        self,
        pool: Any,
        operation: Callable[[Connection], Awaitable[T]],
        committed: Callable[[], None] | None = None,
        *,
        opening: bool = False,
    ) -> T:
        import asyncpg  # noqa: PLC0415 - it is there, since the pool is

        try:
            connection = await pool.acquire(timeout=ACQUIRE_S)
            try:
                result = await operation(connection)
            except (
                OSError,
                asyncpg.InterfaceError,
            ):  # TimeoutError too: the driver would wait for its cancellation
                connection.terminate()
                raise
            finally:
                await pool.release(connection)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            if getattr(error, "sqlstate", None) == READ_ONLY:
                await pool.expire_connections()  # a primary no more: ask again who is
            raise in_words(error, str(self.address), opening=opening) from error
        if committed is not None:
            committed()
        return result

    async def _connect(self, _dsn: None, **kinds: Any) -> Any:
        """A connection to the first host that can be written; a dead one does not use up the others' time."""
        import asyncpg  # noqa: PLC0415 - it is there, since the pool is

        options = {**kinds, **self._options, "timeout": CONNECT_S, "command_timeout": COMMAND_S}
        attempts = {
            asyncio.create_task(asyncpg.connect(host=host, port=port, **options))
            for host, port in self.address.hosts
        }
        waiting, trouble = attempts, None
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    if attempt.exception() is None:
                        attempts.remove(attempt)
                        return attempt.result()
                    # What one host says about the password tells more than that another is down.
                    if trouble is None or isinstance(attempt.exception(), asyncpg.PostgresError):
                        trouble = attempt.exception()
        finally:
            for attempt in attempts:
                attempt.cancel()
            for late in await asyncio.gather(*attempts, return_exceptions=True):
                if not isinstance(late, BaseException):
                    late.terminate()
        assert trouble is not None  # noqa: S101 - there is a host, and it did not answer
        raise trouble


async def _keep(_connection: Any) -> None:
    """Reset nothing when a connection is given back: no operation changes a session, and a round trip is saved."""
