import socket
from pathlib import Path

import pytest

from bridge.errors import BridgeError
from bridge.listener import listening
from tests.doubles.bridge import settings


def test_a_port_that_is_used_is_found_at_once_and_one_that_was_is_free(tmp_path: Path) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/")
    with listening(config) as listener:
        port = listener.getsockname()[1]
        used = config.model_copy(update={"server": config.server.model_copy(update={"port": port})})
        with pytest.raises(BridgeError, match=f"cannot listen on 127.0.0.1 port {port}"), listening(used):
            pytest.fail("two have it")
    with listening(used) as again, socket.create_connection(again.getsockname()):
        pass
