import asyncio
from pathlib import Path

from tests.doubles.bridge import running


async def test_what_is_spawned_is_waited_for(tmp_path: Path) -> None:
    done = False

    async def work() -> None:
        nonlocal done
        await asyncio.sleep(0.05)
        done = True

    async with running(tmp_path, "ws://127.0.0.1:9/websocket") as setup:
        setup.bridge._services.spawn(work())
    assert done
