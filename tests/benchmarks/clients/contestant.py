"""Ways to send to Whisper and to receive from Twilio, as they are compared."""

import asyncio
import json
import ssl
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, TypeVar

import uvloop

S = TypeVar("S")

Take = Callable[[str | bytes], None]
"""What a server does with each message."""

NOTHING: Final = "nothing"
BRIDGE: Final = "bridge"

SENDING: Final = {
    NOTHING: "the schedule alone",
    "bare": "uvloop's transport, frames made before",
    "websockets": "websockets, asyncio client",
    "sans-io": "websockets, sans-I/O protocol",
    "aiohttp": "aiohttp",
    "picows": "picows",
    BRIDGE: "the bridge",
    "bridge-aiofastnet": "the bridge, on aiofastnet's transport",
}
"""Name -> what it is."""

RECEIVING: Final = {
    "websockets": "websockets, asyncio server",
    "sans-io": "websockets, sans-I/O protocol",
    "aiohttp": "aiohttp, `receive()`",
    "aiohttp-callback": "aiohttp, its parser into a callback",
    "picows": "picows",
    BRIDGE: "the bridge",
    "bridge-aiofastnet": "the bridge, on aiofastnet's transport",
}

EXTRA: Final = {"picows": "picows", "bridge-aiofastnet": "aiofastnet"}
"""Those that need a package which the bridge does not depend on."""


class Client(ABC, Generic[S]):
    """One way to send."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.tls = ssl.create_default_context() if url.startswith("wss") else None

    @abstractmethod
    async def open(self) -> S:
        """One more socket."""

    @abstractmethod
    async def send(self, turn: Iterable[tuple[S, bytes]]) -> None:
        """Send each of these sockets its frame."""


class Server(ABC):
    """One way to receive."""

    def __init__(self, take: Take) -> None:
        self.take = take

    @abstractmethod
    async def listen(self, tls: ssl.SSLContext | None) -> int:
        """Listen on 127.0.0.1, until the process ends; returns the port."""


def loop(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the event loop for this one."""
    if name == "bridge-aiofastnet":
        from aiofastnet import loop_factory  # noqa: PLC0415 - it need not be there

        return loop_factory(uvloop.new_event_loop)
    return uvloop.new_event_loop


def ready(port: int = 0) -> None:
    """Tell that orders are taken, and on which port sockets, if any."""
    sys.stderr.write(json.dumps({"event": "listening", "port": port}) + "\n")


def answer(told: dict[str, Any]) -> None:
    """Answer an order."""
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
