import asyncio
import os
import signal

from bridge.signals import Signals


async def test_the_first_signal_ends_in_order_and_the_second_at_once() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await signals.stop.wait()
        assert not signals.hurry.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(5):
            await signals.hurry.wait()
    assert asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM) is False
