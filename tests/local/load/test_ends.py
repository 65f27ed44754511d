from pathlib import Path
from typing import Any

import pytest

from bridge.config import Config
from bridge.errors import BridgeError, UsageError
from bridge.local.load import tag
from bridge.local.load.ends import TAGGED, Ends, tagged
from bridge.local.receiver import Receiver
from tests.doubles.bridge import SECRET, settings


def config(tmp_path: Path, **urls: str) -> Config:
    return settings(
        tmp_path,
        urls.get("whisper", "ws://127.0.0.1:9090/websocket"),
        urls.get("webhook", "http://127.0.0.1:9091/"),
    )


@pytest.mark.parametrize(
    "urls",
    [
        {"whisper": "wss://127.0.0.1:9090/websocket"},
        {"whisper": "ws://10.0.0.1:9090/websocket"},
        {"webhook": "https://agent.example.com/"},
        {"webhook": "https://127.0.0.1/"},
    ],
)
def test_ends_on_other_machines_are_not_taken(tmp_path: Path, urls: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="--local needs a configuration whose ends are on this machine"):
        Ends(config(tmp_path, **urls), [])


async def test_where_one_end_cannot_be_had_the_other_is_given_back(tmp_path: Path) -> None:
    async with Receiver(SECRET) as whisper, Receiver(SECRET) as other:
        free = other.url
    async with whisper:
        ends = Ends(config(tmp_path, whisper=whisper.url.replace("http", "ws"), webhook=free), [])
        with pytest.raises(BridgeError, match="cannot be a Whisper server"):
            await ends.__aenter__()
        ends = Ends(config(tmp_path, whisper=free.replace("http", "ws"), webhook=whisper.url), [])
        with pytest.raises(BridgeError, match="cannot receive webhooks"):
            await ends.__aenter__()
    async with Ends(config(tmp_path, whisper=free.replace("http", "ws"), webhook=whisper.url), []):
        pass


def test_each_track_says_first_which_it_is() -> None:
    def number(audio: bytes) -> int:
        return tag.heard(tag.widened(audio[: tag.MESSAGE]))

    recorded: dict[Any, bytes] = {"inbound": b"\x10" * 8000, "outbound": b"\x20" * 100}

    found = tagged(recorded, 300)

    assert {track: len(audio) for track, audio in found.items()} == {"inbound": 8000, "outbound": 1600}
    assert found["inbound"][TAGGED * tag.MESSAGE :] == recorded["inbound"][TAGGED * tag.MESSAGE :]
    assert (number(found["inbound"]), number(found["outbound"])) == (600, 601)
    assert [number(audio) for audio in tagged({}, 1).values()] == [2, 3]
