from pathlib import Path

import aiohttp

from bridge.outbox.outbox import Line
from tests.doubles.bridge import running

NOWHERE = "ws://127.0.0.1:9/websocket"
TOKEN = "an-admin-token"
ONE = "CA" + "1" * 32


async def test_the_transcript_is_in_the_order_in_which_they_spoke(tmp_path: Path) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        running(tmp_path, NOWHERE, server={"admin_token": TOKEN}) as setup,
        aiohttp.ClientSession(headers=headers) as session,
    ):
        outbox = setup.bridge._services.outbox
        lines = [Line(1, "inbound", 2000, 2500, "Yes?"), Line(2, "outbound", 100, 900, "Hello, is this Bob?")]
        await outbox.publish(await outbox.own_call(ONE, "a test", b""), [], {}, lines=lines)

        async def ask(path: str) -> tuple[int, object]:
            async with session.get(f"{setup.url}/api/calls/{path}") as answer:
                return answer.status, await answer.json()

        told = [
            {"track": "outbound", "text": "Hello, is this Bob?", "start_ms": 100, "end_ms": 900},
            {"track": "inbound", "text": "Yes?", "start_ms": 2000, "end_ms": 2500},
        ]
        assert await ask(f"{ONE}/transcript") == (200, {"call_sid": ONE, "transcript": told})
        unknown = "CA" + "2" * 32
        assert await ask(f"{unknown}/transcript") == (200, {"call_sid": unknown, "transcript": []})
        status, refusal = await ask("CA../transcript")
        assert status == 400
        assert "CA" in str(refusal)
        async with session.get(
            f"{setup.url}/api/calls/{ONE}/transcript", headers={"Authorization": ""}
        ) as answer:
            assert answer.status == 401
