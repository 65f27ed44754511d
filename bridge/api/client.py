"""How the commands speak to a running bridge: its API, over HTTP."""

import asyncio
import ipaddress
import json
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit

import aiohttp

from bridge.api.api import PREFIX
from bridge.config import Config, load
from bridge.config.config import is_loopback
from bridge.errors import BridgeError, ConfigError, UsageError

CONNECT_S: Final = 5.0
ANSWER_S: Final = 60.0
"""Longer than the API waits for the outbox, so that its own sentence arrives."""

NO_ROUTE: Final = f"{HTTPStatus.NOT_FOUND.description}."
"""What the API says of a route that it does not have, as against a thing that it does not know."""

_T = TypeVar("_T")


def address(config: Config) -> str:
    """Where a bridge of this configuration is reached from this machine. Raises `UsageError`."""
    host, port = config.server.host, config.server.port
    if port == 0:
        raise UsageError("server.port is 0, any free port: name the bridge with --url http://127.0.0.1:PORT.")
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if ip.is_unspecified:  # it listens everywhere, so here too
        host = "127.0.0.1" if ip.version == 4 else "::1"
    return f"http://{f'[{host}]' if ip.version == 6 else host}:{port}"


class Client:
    """A bridge at `url`, as an operator: `async with Client(url, token) as bridge`.

    Raises `BridgeError` when it does not answer or refuses, `UsageError` for what was asked wrongly.
    """

    def __init__(self, url: str, token: str) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment or "@" in parts.netloc:
            raise UsageError("--url must be the address of a bridge, such as http://127.0.0.1:8080.")
        if not token:
            raise ConfigError(
                "server.admin_token is empty, which switches the operator's API off: set it for the bridge "
                "and for this command (or the environment variable BRIDGE_SERVER__ADMIN_TOKEN)."
            )
        self.exposed = parts.scheme == "http" and not is_loopback(parts.hostname or "")
        """The token travels unencrypted to another machine."""
        self._url = url.rstrip("/")
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_S, sock_connect=CONNECT_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(self, path: str, query: Iterable[tuple[str, str]], *, holds: str) -> dict[str, Any]:
        """Read something; the answer has a field of the name `holds`."""
        return await self._ask("GET", path, holds, params=list(query))

    async def post(self, path: str, body: Mapping[str, Any], *, holds: str) -> dict[str, Any]:
        """Have something done; the answer has a field of the name `holds`."""
        return await self._ask("POST", path, holds, json=body)

    async def _ask(self, method: str, path: str, holds: str, **options: Any) -> dict[str, Any]:
        if self._session is None:
            raise RuntimeError("the client is not open")
        url = f"{self._url}{PREFIX}{path}"
        try:
            # A redirect would take the token somewhere else.
            async with self._session.request(method, url, allow_redirects=False, **options) as answer:
                return self._read(answer.status, await answer.read(), holds)
        except TimeoutError as error:
            raise BridgeError(f"the bridge at {self._url} did not answer in time") from error
        except aiohttp.ClientSSLError as error:
            raise BridgeError(f"the certificate of {self._url} cannot be trusted: {error}") from error
        except aiohttp.ClientConnectorError as error:
            raise BridgeError(
                f"no bridge answers at {self._url} ({_reason(error)}): "
                "is `whisper-bridge serve` running there? --url names another place"
            ) from error
        except aiohttp.ClientError as error:
            raise BridgeError(f"the bridge at {self._url} broke off: {error}") from error

    def _read(self, status: int, body: bytes, holds: str) -> dict[str, Any]:
        """The answer, or the error that its status means."""
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        told = value if isinstance(value, dict) else {}
        if status == HTTPStatus.OK and holds in told:
            return told
        if status == HTTPStatus.UNAUTHORIZED:
            raise BridgeError(
                f"the bridge at {self._url} refuses the admin token: "
                "server.admin_token must be the one that it was started with"
            )
        if status == HTTPStatus.NOT_FOUND and told.get("error", NO_ROUTE) == NO_ROUTE:
            raise BridgeError(
                f"there is no operator's API at {self._url}: the bridge was started with an empty "
                "server.admin_token, or this is not a bridge"
            )
        sentence = str(told.get("error", "that is no answer of a bridge"))[:500]
        if status in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}:
            raise UsageError(sentence)
        if status in {HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}:  # of what was asked after
            raise BridgeError(sentence)
        raise BridgeError(f"the bridge at {self._url} answers {status}: {sentence}")


def ask(config: Path | None, url: str | None, question: Callable[[Client], Awaitable[_T]]) -> _T:
    """What the configured bridge, or the one at `url`, answers: for commands, outside of any loop."""
    settings = load(config)
    client = Client(address(settings) if url is None else url, settings.server.admin_token.get_secret_value())
    if client.exposed:
        sys.stderr.write("The admin token travels unencrypted: use https, or a tunnel.\n")

    async def run() -> _T:
        async with client:
            return await question(client)

    return asyncio.run(run())


def _reason(error: aiohttp.ClientConnectorError) -> str:
    """The system's word for it; asyncio's own has the address in it once more."""
    if error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error.strerror or error.os_error)  # of a name that is not known
