"""What keeps the outbox from growing for ever: bodies and calls are removed when their time is over."""

import asyncio

from bridge import log
from bridge.outbox.outbox import Outbox, OutboxDown

EVERY_S = 60.0
"""Between looks for what is past its time."""

AT_ONCE_S = 1.0
"""The same when bodies are not to be kept."""

_log = log.get(__name__)


async def retain(
    outbox: Outbox, *, keep_bodies_h: float = 24, keep_rows_d: float = 30, every_s: float | None = None
) -> None:
    """Remove bodies that many hours after their delivery, and calls that many days after they began.

    0 hours: bodies go within a second or so. Runs until it is cancelled, and outlives an outbox that is down.
    """
    if every_s is None:
        every_s = EVERY_S if keep_bodies_h else AT_ONCE_S
    down = False
    while True:
        try:
            while await outbox.purge(body_age_s=keep_bodies_h * 3600, call_age_s=keep_rows_d * 86_400):
                pass
        except OutboxDown as error:
            if not down:
                _log.error("retention_down", error=str(error))
            down = True
        else:
            if down:
                _log.info("retention_up")
            down = False
        await asyncio.sleep(every_s)
