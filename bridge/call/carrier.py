"""What carries a call's audio to us: a stream, or for a while none."""

from collections.abc import Callable
from typing import Final

from aiohttp import WSCloseCode

IDLE_S: Final = 900.0
"""A stream that has brought nothing for so long is over, if neither `stop` nor a close ever came, nor Twilio's word."""

MUTE_S: Final = 30.0
"""A stream that has brought nothing for so long may have been lost without a close; or the caller is on hold."""

LASTING_S: Final = 60.0
"""A stream that lived for so long was no vain try."""


class Carrier:
    """The streams of one call, one after the other. Sans-I/O; `now` is monotonic, in seconds.

    A stream's socket is closed by the `hang_up` that it came with, which takes the close code.
    """

    def __init__(self, now: float, *, waiting: bool) -> None:
        self.generation = 0
        """Counts the streams: only the latest may end the call."""
        self.waiting = waiting
        """No stream carries the call; one may come."""
        self.cut_for = ""
        """Why it has none, in the words that `call.ended` has if nobody can say more; empty: nobody had the call."""
        self.tries = 0
        """Streams that were asked for in vain."""
        self._hang_up: Callable[[int], None] = _nobody
        self._began_at = self._heard_at = self._asked_at = now

    def begin(self, hang_up: Callable[[int], None], now: float) -> None:
        """A stream carries the call from now on: the one before it is closed."""
        self.close(WSCloseCode.OK)
        self.generation += 1
        self.waiting = False
        self._hang_up = hang_up
        self._began_at = self._heard_at = self._asked_at = now

    def heard(self, now: float) -> None:
        """The stream has brought something."""
        self._heard_at = now

    def cut(self, reason: str, now: float) -> None:
        """The stream is over, for this reason, and perhaps not the call."""
        if now - self._began_at > LASTING_S:
            self.tries = 0
        self.waiting, self.cut_for = True, reason
        self.close(WSCloseCode.OK)

    def close(self, code: int) -> None:
        """Close the stream's socket: nothing that it still brings counts."""
        self.generation += 1
        hang_up, self._hang_up = self._hang_up, _nobody
        hang_up(code)

    def silent_s(self, now: float) -> float:
        """Since when the stream has brought nothing."""
        return now - self._heard_at

    def idle(self, now: float) -> bool:
        """Whether the stream must be taken for dead."""
        return not self.waiting and self.silent_s(now) > IDLE_S

    def mute(self, now: float) -> bool:
        """Whether Twilio is to be asked if the call still goes on; said once in a while."""
        if self.waiting or now - max(self._heard_at, self._asked_at) <= MUTE_S:
            return False
        self._asked_at = now
        return True

    def confirmed(self) -> None:
        """Twilio has said that the call goes on: nobody is taken for dead who is only on hold."""
        self._heard_at = max(self._heard_at, self._asked_at)


def _nobody(_code: int) -> None:
    """There is no socket to be closed."""
