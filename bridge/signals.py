"""What a process is told by signals: to take no more calls, and to leave at once."""

import asyncio
import signal
from typing import Final, Self

from bridge import log

_logger: Final = log.get(__name__)


class Signals:
    """What SIGTERM and SIGINT ask for: the first to take no more calls, the second to leave at once."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()

    def __enter__(self) -> Self:
        """Take the signals over from the interpreter."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._received, number)
        return self

    def __exit__(self, *_: object) -> None:
        """Give them back."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)

    def _received(self, number: int) -> None:
        (self.hurry if self.stop.is_set() else self.stop).set()
        _logger.info("signal", signal=signal.Signals(number).name, hurry=self.hurry.is_set())
