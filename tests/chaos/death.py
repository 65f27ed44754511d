"""Where a worker dies by its own hand, so that its death lies exactly there, and not only by chance near it."""

import os
import signal
import sqlite3
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal, ParamSpec, TypeVar

from bridge.outbox.sqlite import Sqlite
from bridge.webhook.sender import Sender
from tests.chaos import wal

P = ParamSpec("P")
T = TypeVar("T")

Place = Literal[
    "before commit", "in commit", "after commit", "in checkpoint", "before post", "before ack", "after ack"
]
PLACES: Final[tuple[Place, ...]] = (
    "before commit",
    "in commit",
    "after commit",
    "in checkpoint",
    "before post",
    "before ack",
    "after ack",
)
SMALL: Final = 10
"""Frames that a commit may well have."""


class Death:
    """Strikes when `place` is reached for the `nth` time; inside a commit `delay_s` after its beginning."""

    def __init__(self, place: str, nth: int, delay_s: float) -> None:
        self._place = place
        self._left = nth
        self._delay_s = delay_s

    def lurk(self, directory: Path) -> None:
        """Watch this process's commits, if the outbox is the SQLite file in `directory`, and its POSTs."""
        death, database = self, directory / "outbox.sqlite3"

        class Mortal(sqlite3.Connection):
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                if sql != "commit":
                    return super().execute(sql, parameters)
                death.pass_by("before commit")
                death.approach("in commit")
                if wal.frames(database) >= wal.AUTOCHECKPOINT - SMALL:
                    death.approach("in checkpoint")
                cursor = super().execute(sql, parameters)
                death.pass_by("after commit")
                return cursor

        sqlite3.connect = partial(sqlite3.connect, factory=Mortal)  # type: ignore[assignment]  # it has overloads
        Sender.post = self._around(Sender.post, "before post", "before ack")  # type: ignore[method-assign]  # in this process
        Sqlite.ack = self._around(Sqlite.ack, "", "after ack")  # type: ignore[method-assign]  # in this process

    def pass_by(self, place: str) -> None:
        """Die here, if this is the place and the time."""
        if self._is_due(place):
            os.kill(os.getpid(), signal.SIGKILL)

    def approach(self, place: str) -> None:
        """Die a little later. No code runs at SIGALRM, which ends a process as SIGKILL does, but on time."""
        if self._is_due(place):
            signal.setitimer(signal.ITIMER_REAL, max(self._delay_s, 1e-6))

    def _is_due(self, place: str) -> bool:
        here = place != "" and place == self._place
        self._left -= here
        return here and self._left == 0

    def _around(
        self, do: Callable[P, Coroutine[Any, Any, T]], before: str, after: str
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        async def done(*args: P.args, **kwargs: P.kwargs) -> T:
            self.pass_by(before)
            result = await do(*args, **kwargs)
            self.pass_by(after)
            return result

        return done
