"""The event loop that programs run on."""

import asyncio
import sys
from collections.abc import Callable


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None: the interpreter's own, where there is no other."""
    if sys.platform == "win32":
        return None
    import uvloop  # noqa: PLC0415 - not on Windows, and `--help` does without

    return uvloop.new_event_loop
