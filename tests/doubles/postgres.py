"""A real PostgreSQL server for tests, on loopback: started, stopped, frozen, killed, copied and promoted.

    async with PostgresServer() as primary:
        store = Postgres(primary.url)
        standby = await primary.standby()   # primary.url now commits on both
        await primary.kill()
        await standby.promote()             # several_hosts(primary, standby) finds it

Needs PostgreSQL's programs (`installed()` says whether they are there), not a running service.
"""

import asyncio
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

USER, PASSWORD, DATABASE = "bridge", "correct-horse", "postgres"
PORTS = range(20_000, 32_768)
"""Below the ports that a system gives to outgoing connections."""

START_S = 30
PROGRAMS = ("initdb", "pg_ctl", "pg_basebackup")

MISSING = "PostgreSQL's server programs are not here: apt install postgresql"
"""Why a test was skipped, and what to do about it."""

SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "60",
    "shared_buffers": "'32MB'",
    "wal_sender_timeout": "'5s'",
    "log_min_error_statement": "panic",
}


def installed() -> bool:
    """Whether PostgreSQL's programs are here."""
    return _programs() is not None


def several_hosts(servers: Iterable["PostgresServer"], database: str = DATABASE) -> str:
    """One URL that names all these servers."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://{USER}:{PASSWORD}@{hosts}/{database}"


class PostgresServer:
    """One server with a directory and a port of its own; both stay the same until `remove`.

    `fsync=False` is faster and survives `kill`, but not a power cut. Run by root, it runs as the
    user `postgres`, since the server refuses root.
    """

    def __init__(self, *, fsync: bool = True, port: int = 0) -> None:
        self.port = port or _free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="whisper-bridge-postgres-"))
        self.data = self.directory / "data"
        self._fsync = fsync
        self._standbys = 0
        if os.geteuid() == 0:
            shutil.chown(self.directory, "postgres")

    @property
    def url(self) -> str:
        """How a superuser reaches it."""
        return several_hosts([self])

    @property
    def pid(self) -> int | None:
        """The postmaster's, while there is one."""
        with suppress(FileNotFoundError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            with suppress(ProcessLookupError):
                os.kill(pid, 0)
                return pid
        return None

    async def start(self) -> None:
        """Start and wait until it takes connections; also after `stop` and `kill`. Makes the database first."""
        if not self.data.exists():
            await self._init()
        for attempt in range(5):
            try:
                await self._pg_ctl("start", "--timeout", str(START_S), "--options", f"-p {self.port}")
            except RuntimeError:
                if attempt == 4 or "Address already in use" not in self.log():
                    raise
                await asyncio.sleep(0.2)
            else:
                return

    async def stop(self) -> None:
        """As an administrator does: sessions are ended, nothing is lost."""
        if self.pid is not None:
            await self._pg_ctl("stop", "--mode", "fast")

    async def kill(self) -> None:
        """SIGKILL to all its processes at the same moment: the machine is gone."""
        pids = await self._processes()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        async with asyncio.timeout(START_S):
            while any(_alive(pid) for pid in pids):
                await asyncio.sleep(0.01)
        # A dead process that nobody waits for keeps its number, and the next start would take it for alive.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    async def freeze(self) -> None:
        """SIGSTOP to all its processes: the machine answers nothing, and drops no connection."""
        await self._processes()

    async def thaw(self) -> None:
        """Go on after `freeze`."""
        for pid in reversed(await self._processes()):
            os.kill(pid, signal.SIGCONT)

    async def standby(self, port: int = 0) -> "PostgresServer":
        """A new server that follows this one: from its return on, a commit here waits for it.

        `port` may be that of a server which was removed: a machine that is back, with a new disk.
        It is the only synchronous standby: one that was there before still follows, but nobody waits for it.
        """
        self._standbys += 1
        name = f"standby{self._standbys}"
        standby = PostgresServer(fsync=self._fsync, port=port)
        try:
            source = f"{self.url}?application_name={name}"
            await standby._run(
                "pg_basebackup", "--dbname", source, "--pgdata", str(standby.data), "--write-recovery-conf",
                "--checkpoint", "fast", "--no-sync",
            )  # fmt: skip
            with (standby.data / "postgresql.auto.conf").open("a") as conf:
                conf.write("synchronous_standby_names = ''\n")
            await standby.start()
            await self.query(f"alter system set synchronous_standby_names = 'ANY 1 ({name})'")
            await self.query("select pg_reload_conf()")
            async with asyncio.timeout(START_S):
                attached = (
                    "select 1 from pg_stat_replication where application_name = $1 and sync_state = 'quorum'"
                )
                while not await self.query(attached, name):
                    await asyncio.sleep(0.02)
        except BaseException:
            await standby.remove()
            raise
        return standby

    async def alone(self) -> None:
        """Wait for no standby any more."""
        await self.query("alter system reset synchronous_standby_names")
        await self.query("select pg_reload_conf()")

    async def use_tls(self, certificate: str) -> None:
        """Offer TLS with this certificate and its key, both as PEM."""
        self._take("tls.pem", certificate)
        for setting in ("ssl_cert_file = '../tls.pem'", "ssl_key_file = '../tls.pem'", "ssl = on"):
            await self.query(f"alter system set {setting}")
        await self.query("select pg_reload_conf()")
        async with asyncio.timeout(START_S):
            while not await self.query("select 1 where current_setting('ssl')::bool"):
                await asyncio.sleep(0.02)

    async def promote(self) -> None:
        """The standby becomes a primary, which waits for no standby; returns when it can be written."""
        await self._pg_ctl("promote", "--timeout", str(START_S))

    async def query(self, sql: str, *arguments: Any) -> list[Any]:
        """Run one statement in a connection of its own; its rows."""
        connection = await asyncpg.connect(self.url, timeout=5, command_timeout=START_S)
        try:
            return list(await connection.fetch(sql, *arguments))
        finally:
            connection.terminate()

    def log(self) -> str:
        """What the server wrote."""
        with suppress(FileNotFoundError):
            return (self.directory / "log").read_text(errors="replace")
        return ""

    async def remove(self) -> None:
        """Kill it, and delete its files."""
        await self.kill()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.remove()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.remove()

    def _take(self, name: str, secret: str) -> Path:
        """A file that only the server can read."""
        file = self.directory / name
        file.write_text(secret)
        file.chmod(0o600)
        if os.geteuid() == 0:
            shutil.chown(file, "postgres")
        return file

    async def _init(self) -> None:
        secret = self._take("password", PASSWORD)
        await self._run(
            "initdb", "--pgdata", str(self.data), "--username", USER, "--pwfile", str(secret),
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync",
        )  # fmt: skip
        settings = {**SETTINGS, "fsync": "on" if self._fsync else "off"}
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.writelines(f"{name} = {value}\n" for name, value in settings.items())

    async def _pg_ctl(self, action: str, *options: str) -> None:
        logged = ("--log", str(self.directory / "log")) if action == "start" else ()
        await self._run("pg_ctl", action, "--wait", "--pgdata", str(self.data), *logged, *options)

    async def _run(self, program: str, *arguments: str) -> None:
        programs = _programs()
        if programs is None:
            raise RuntimeError(MISSING)
        as_user = ("runuser", "-u", "postgres", "--") if os.geteuid() == 0 else ()
        # Not a pipe: the server would inherit it, and it would never end.
        with tempfile.TemporaryFile() as output:
            process = await asyncio.create_subprocess_exec(
                *as_user, str(programs / program), *arguments,
                cwd=self.directory, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
            if await process.wait() != 0:
                output.seek(0)
                raise RuntimeError(f"{program}: {output.read().decode(errors='replace')}\n{self.log()}")

    async def _processes(self) -> list[int]:
        """Stop all of them, so that no new ones come, and say which they are: the postmaster first."""
        postmaster = self.pid
        if postmaster is None:
            return []
        os.kill(postmaster, signal.SIGSTOP)
        process = await asyncio.create_subprocess_exec(
            "ps", "-A", "-o", "pid=,ppid=", stdout=asyncio.subprocess.PIPE
        )
        listing, _ = await process.communicate()
        pairs = (line.split() for line in listing.decode().splitlines())
        children = [int(pid) for pid, parent in pairs if int(parent) == postmaster]
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return [postmaster, *children]


def _programs() -> Path | None:
    """The directory of PostgreSQL's programs, the newest of several."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_version, reverse=True)
    return next((place for place in places if all((place / name).exists() for name in PROGRAMS)), None)


def _version(place: Path) -> float:
    try:
        return float(place.parent.name)
    except ValueError:
        return 0


def _free_port() -> int:
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    # Nobody may wait for it where the container's first process is no init.
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return False
