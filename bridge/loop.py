"""The event loop that programs run on, and what would stop it."""

import asyncio
import gc
import sys
from collections.abc import Callable


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: the interpreter's own, where there is no other."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not on Windows, and `--help` does without

    return uvloop.new_event_loop


def rarely_collect() -> None:
    """Keep the search for cyclic garbage from stopping the loop: to be called when everything is imported and open.

    What there is by now is searched no more: with it a full search takes 0.05 to 0.15 s, in which no call is served.
    Calls leave little for it, so one in a thousand young searches is full, not one in a hundred.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, 100)
