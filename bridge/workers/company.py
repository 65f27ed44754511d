"""What a bridge has around it on its machine: the way in, the outbox, and the other workers if there are any."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sized
from socket import socket
from typing import Any, Final, Protocol

from aiohttp import web
from prometheus_client import generate_latest

from bridge.config import Config
from bridge.listener import announce, runner_of
from bridge.outbox.outbox import Outbox
from bridge.outbox.store import outbox_of

ASK_S: Final = 5.0
"""How long the others may take to answer."""

DIED: Final = "died"
"""Told: a worker is no more, of this node."""

BEGUN: Final = "begun"
"""Told: a call of this id has its stream at another worker."""

HEIR: Final = "heir"
"""Told: a worker waits for the call of this id."""

STOPPED: Final = "stopped"
"""Told: Twilio says that a stream is over; the call's id, the stream's, and the reason."""

CALLS: Final = "calls"
"""Asked: which calls a worker has."""

CALL: Final = "call"
"""Asked: what there is to say of the call of this id."""

STREAMED: Final = "streamed"
"""Asked: whether the call of this id has a stream there."""

DETACH: Final = "detach"
"""Asked: to transcribe the call of this id no more."""

ERASE: Final = "erase"
"""Asked: to do so, and remove its audio."""

Answer = Callable[[Any], Awaitable[Any]]
"""Answers what another worker asks. What goes in and comes out is what JSON can say; None is nothing to say."""


class Others(Protocol):
    """The other workers of this machine; there may be none."""

    async def ask(self, what: str, about: Any = None, *, timeout_s: float = ASK_S) -> list[Any]:
        """Ask every other worker; what those said that had something to say within the time."""

    def tell(self, what: str, about: Any = None) -> None:
        """Tell every other worker."""


class Streams(Sized, Protocol):
    """The media streams of a bridge; how many there are says how busy it is."""

    changed: Callable[[], None]
    """Is called when one more has been let in."""

    @property
    def fullness(self) -> int:
        """As `Report` has it."""


class Company(Others, Protocol):
    """What a bridge has around it."""

    node: str
    """This process, as the outbox knows it: one life of it; 32 hexadecimal digits."""
    port: int
    """Where the machine's bridge listens."""
    outbox: Outbox
    """Not open yet."""
    alone: bool
    """No process beside this one uses the outbox, unless it is shared by machines."""

    def answer(self, answers: Mapping[str, Answer]) -> None:
        """Answer what the others ask, each kind of question by its name."""

    async def serve(self, app: web.Application, streams: Streams) -> web.AppRunner:
        """Begin to lead connections to the application, which has these `streams`."""

    async def figures(self) -> bytes:
        """What `/metrics` shows: of all workers together. Raises `Lost` when they cannot be had now."""


@contextlib.asynccontextmanager
async def opened(outbox: Outbox) -> AsyncIterator[Outbox]:
    """The outbox, open. Raises as its `open` does."""
    await outbox.open()
    try:
        yield outbox
    finally:
        await outbox.close()


class Alone:
    """A process that is the whole bridge, and listens itself."""

    alone = True

    def __init__(self, config: Config, listener: socket) -> None:
        self.node = uuid.uuid4().hex
        self.port: int = listener.getsockname()[1]
        self.outbox = outbox_of(config)
        self._config = config
        self._listener = listener

    def answer(self, answers: Mapping[str, Answer]) -> None:
        """Nobody asks."""

    async def serve(self, app: web.Application, streams: Streams) -> web.AppRunner:  # noqa: ARG002 - nobody else could have one
        """Listen."""
        runner = runner_of(app)
        await runner.setup()
        await web.SockSite(runner, self._listener).start()
        announce(self._config, self.port)
        return runner

    async def ask(self, what: str, about: Any = None, *, timeout_s: float = ASK_S) -> list[Any]:  # noqa: ARG002 - nobody is there
        """Nobody has anything to say."""
        return []

    def tell(self, what: str, about: Any = None) -> None:
        """Nobody listens."""

    async def figures(self) -> bytes:
        """Those of this process."""
        return generate_latest()
