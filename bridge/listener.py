"""The socket that a bridge listens on, and what answers there."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from bridge import __version__, log
from bridge.config import Config
from bridge.errors import BridgeError

BACKLOG: Final = 1024
"""Connections that may wait to be taken: as many as begin while a bridge is busy for a second."""

KEEPALIVE_S: Final = 75.0
"""How long a connection may be idle: aiohttp's hour would let strangers use up the open files. Twilio reconnects."""

_logger = log.get(__name__)


@contextlib.contextmanager
def listening(config: Config) -> Iterator[socket.socket]:
    """The socket; taken first, so that a used port is found before anything opens. Raises `BridgeError`."""
    host, port = config.server.host, config.server.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise BridgeError(
            f"cannot listen on {host} port {port} (server.host, server.port): {error}"
        ) from error
    with listener:
        yield listener


def announce(config: Config, port: int) -> None:
    """Say that calls are taken; who starts a bridge waits for this line."""
    host = config.server.host
    _logger.info(
        "listening",
        host=host,
        port=port,
        url=f"http://{host}:{port}",
        public_url=config.public_url(port),
        version=__version__,
    )


def runner_of(app: web.Application) -> web.AppRunner:
    """What runs the application, without a way in yet."""
    return web.AppRunner(app, access_log=None, shutdown_timeout=2.0, keepalive_timeout=KEEPALIVE_S)
