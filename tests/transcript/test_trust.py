import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from websockets.asyncio.server import ServerConnection

from bridge.config import Config
from bridge.local.twilio.script import Script
from bridge.transcript.heard import Heard, HeardWord
from bridge.transcript.loudness import Loudness
from bridge.transcript.trust import Trust
from tests.doubles.bridge import running
from tests.doubles.numbered import Connection, NumberedWhisper, speech


def trust(**transcript: Any) -> Trust:
    return Trust(Config.model_validate({"transcript": transcript}).for_number("+15551234567"))


def heard(text: str) -> Heard:
    words = tuple(HeardWord(word, 8000, 16_000, 0.9) for word in text.split())
    return Heard(text, 8000, 16_000, words, "en", -0.2, ())


def loudness(peak: int) -> Loudness:
    made = Loudness()
    made.sent(0, 80_000, peak)
    return made


def count(name: str, reason: str) -> float:
    return REGISTRY.get_sample_value(f"bridge_finals_{name}_total", {"reason": reason}) or 0.0


def test_a_final_is_labelled_and_then_redacted() -> None:
    before = count("suspect", "silent_audio")
    final = trust(redact=["card"]).final(heard("4242 4242 4242 4242"), loudness(50))
    assert (final.text, final.suspect) == ("[card]", ("silent_audio",))
    assert [word.word for word in final.words] == ["[card]"] * 4
    assert count("suspect", "silent_audio") == before + 1
    assert trust().final(heard("Yes."), loudness(9000)) == heard("Yes.")


def test_speech_close_by_may_be_what_was_heard() -> None:
    made = Loudness()
    made.sent(0, 20_000, 50)
    made.sent(20_000, 22_000, 9000)  # half a second after the final
    assert trust().final(heard("Yes."), made).suspect == ()


def test_a_partial_is_redacted_to_its_end() -> None:
    assert trust(redact=["card"]).partial(heard("It is 4242 42")).text == "It is [digits]"
    assert trust().partial(heard("It is 4242 42")) == heard("It is 4242 42")


def test_what_the_operator_does_not_want() -> None:
    quiet = trust().final(heard("Yes."), loudness(50))
    assert trust().against(quiet) is None
    assert trust(drop_suspect=["repetition"]).against(quiet) is None
    assert trust(drop_suspect=["repetition", "silent_audio"]).against(quiet) == "silent_audio"


async def test_a_dropped_final_is_nowhere_but_its_audio_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bridge.transcript.suspect.LOUD_PEAK", 500
    )  # words 0 to 3 are softer, 40 to 43 louder
    before = count("dropped", "silent_audio")
    drop = {"drop_suspect": ["silent_audio"]}
    silent, spoken = speech(range(4)), b"\xff" * 16_000 + speech(range(40, 44))
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url, transcript=drop) as setup:
        report = await setup.call({"inbound": silent + spoken}, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
    assert [event.type for event in events] == ["call.started", "transcript.final", "call.ended"]
    assert [event.data["sequence"] for event in events] == [1, 2, 3]
    assert events[1].data["text"] == "w40 w41 w42 w43"
    assert [line["text"] for line in events[2].data["transcript"]] == ["w40 w41 w42 w43"]
    assert events[2].data["complete"]
    assert count("dropped", "silent_audio") == before + 1
    assert not list((tmp_path / "outbox" / "journal").glob("*"))


async def test_a_card_is_nowhere_when_cards_are_redacted(tmp_path: Path) -> None:
    words = ["My", "card", "is", "4242", "four", "two", "42", "4242", "4242"]

    async def fault(number: int, connection: Connection, socket: ServerConnection) -> None:
        if number == 0 and 0.3 < connection.heard_s < 0.34:
            for text, final in (("My card is 4242 four", False), (" ".join(words), True)):
                times = [
                    {"word": word, "start_time": 0.02 * n, "end_time": 0.02 * n + 0.02, "prob": 0.9}
                    for n, word in enumerate(words[: len(text.split())])
                ]
                segment = {"text": text, "start_time": 0.0, "end_time": 0.2, "word_timestamps": times}
                await socket.send(
                    json.dumps({"type": "transcription", "is_final": final, "segments": [segment]})
                )

    sections: dict[str, Any] = {
        "transcript": {"redact": ["card"]},
        "whisper": {"partials": True},
        "webhook": {"events": ["transcript.partial", "transcript.final", "call.ended"]},
        "twilio": {"tracks": "inbound"},
    }
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url, **sections) as setup:
        whisper.fault = fault
        report = await setup.call({"inbound": speech(range(40, 48))}, Script(speed=4)).run()
        events = await setup.ended(report.call_sid)
        stored = b"".join(path.read_bytes() for path in (tmp_path / "outbox").glob("*.sqlite*"))
    final = next(event.data for event in events if event.type == "transcript.final")
    assert final["text"] == "My card is [card]"
    assert [word["word"] for word in final["words"]] == ["My", "card", "is"] + ["[card]"] * 6
    partial = next((event.data["text"] for event in events if event.type == "transcript.partial"), None)
    assert partial in {None, "My card is [digits]"}  # a final may replace it before it is sent
    assert events[-1].data["transcript"][0]["text"] == "My card is [card]"
    assert b"My card is" in stored
    assert b"4242" not in stored
    assert b"4242" not in b"".join(json.dumps(event.data).encode() for event in events)
