import socket
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from bridge.outbox.sqlite import Sqlite
from bridge.workers.company import CALLS, Alone, opened
from tests.doubles.bridge import settings


async def test_a_process_that_is_alone_has_the_outbox_itself_and_nobody_to_ask(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        company = Alone(config, listener)
        assert company.port == listener.getsockname()[1]
        assert company.node != Alone(config, listener).node
        assert isinstance(company.outbox, Sqlite)
        assert await company.ask(CALLS) == []
        company.tell(CALLS)
        assert (await company.figures()).splitlines()[0] == generate_latest().splitlines()[0]


async def test_an_outbox_is_closed_whatever_happens(tmp_path: Path) -> None:
    outbox = Sqlite(tmp_path)
    with pytest.raises(ZeroDivisionError):
        async with opened(outbox):
            raise ZeroDivisionError
    async with opened(Sqlite(tmp_path)) as again:  # nobody has it any more
        assert await again.attached() == []
