import os
from pathlib import Path

import msgspec
import pytest

from bridge.config import load
from bridge.workers.setup import Setup, share
from tests.doubles.bridge import settings

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


def test_a_worker_has_the_whole_configuration_of_its_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGE_WEBHOOK_SECRET", SECRET)
    path = tmp_path / "bridge.toml"
    path.write_text("""
        [server]
        workers = 2
        trusted_proxies = ["10.0.0.0/8"]
        [webhook]
        url = "https://agent.example.com/"
        [[numbers]]
        number = "+15551234567"
        then = "https://voice.example.com/"
    """)
    config = load(path)
    sent = msgspec.msgpack.encode(Setup.of(config, 2, node="a" * 32, port=8080))
    setup = msgspec.msgpack.decode(sent, type=Setup)
    assert (setup.number, setup.node, setup.port) == (2, "a" * 32, 8080)
    assert setup.read().model_dump() == config.model_dump()
    assert setup.read().webhook.secret[0].get_secret_value() == SECRET


@pytest.mark.parametrize(
    ("whole", "calls", "connections"),
    [(0, [0, 0, 0], [0, 0, 0]), (7, [3, 2, 2], [2, 2, 3]), (10, [4, 3, 3], [4, 4, 2])],
)
def test_what_bounds_the_machine_is_divided_among_the_workers_and_no_call_s_two_sockets_are_parted(
    tmp_path: Path, whole: int, calls: list[int], connections: list[int]
) -> None:
    server, whisper = {"workers": 3, "max_calls": whole}, {"max_connections": whole}
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/", server=server, whisper=whisper)
    shares = [share(config, number + 1) for number in range(3)]
    assert [each.server.max_calls for each in shares] == calls
    assert [each.whisper.max_connections for each in shares] == connections


def test_0_workers_are_one_for_each_processor_up_to_as_many_as_there_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path, "ws://127.0.0.1:9/", "https://example.com/", server={"workers": 0})
    assert config.server.processes == len(os.sched_getaffinity(0))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(100)))
    assert config.server.processes == 64
