import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bridge.audio.journal import Journal
from bridge.transcript.heard import Heard
from bridge.whisper import hold
from bridge.whisper.endpoint import IN_ORDER, Endpoint
from bridge.whisper.protocol import Segment, Transcription, WordTime
from bridge.whisper.scribe import Listener, Scribe
from bridge.whisper.watermark import Watermark

SECOND = 8000


def said(text: str, start_s: float, *, final: bool = True, timed: bool = True) -> Transcription:
    """Words of a quarter of a second each."""
    times = [
        WordTime(word, start_s + n / 4, start_s + (n + 1) / 4, None) for n, word in enumerate(text.split())
    ]
    start, end = (start_s, times[-1].end_s) if timed else (None, None)
    segment = Segment(text, start, end, None, tuple(times) if timed else (), possible_hallucination=False)
    return Transcription(final, text, (segment,), None)


@dataclass
class Desk:
    """A scribe, what it publishes, and the audio that it was said to be about."""

    scribe: Scribe
    watermark: Watermark
    endpoint: Endpoint
    published: list[tuple[str, int]] = field(default_factory=list)
    partials: list[str] = field(default_factory=list)
    sent: int = 0

    def send(self, seconds: float, peak: int = 0) -> None:
        """Audio was sent."""
        for _ in range(round(seconds * SECOND / 256)):
            self.watermark.sent(self.sent, self.sent + 256, peak)
            self.sent += 256

    async def hear(self, text: str, start_s: float, **options: bool) -> None:
        await self.scribe.hear(said(text, start_s, **options), self.sent)

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.published]


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    journal, mark, endpoint = Journal(tmp_path / "track"), Watermark(), Endpoint("ws://x/websocket", "", "v1")

    async def final(heard: Heard, settled: int) -> None:
        await asyncio.sleep(0)
        assert scribe.storing
        made.published.append((heard.text, settled))

    listener = Listener(
        final=final, partial=lambda heard: made.partials.append(heard.text), lost=lambda *_: None
    )
    scribe = Scribe(journal, mark, listener)
    scribe.begin(endpoint, 0, again=False)
    made = Desk(scribe, mark, endpoint)
    yield made
    journal.close(delete=True)


async def test_a_final_is_stored_and_then_counts(desk: Desk) -> None:
    desk.send(0.5)
    desk.send(2, peak=9000)
    await desk.hear("one two", 0.5)
    assert desk.published == [("one two", SECOND)]
    assert desk.watermark.offset == SECOND
    assert not desk.scribe.busy


async def test_partials_settle_nothing(desk: Desk) -> None:
    desk.send(3, peak=9000)
    await desk.hear("one", 0.5, final=False)
    assert (desk.partials, desk.published, desk.watermark.offset) == (["one"], [], 0)


async def test_a_later_final_waits_for_the_earlier_one(desk: Desk) -> None:
    desk.send(1, peak=9000)
    desk.send(1)
    desk.send(1, peak=9000)
    desk.send(1)
    await desk.hear("three four", 2.0)
    assert (desk.published, desk.scribe.busy) == ([], True)
    await desk.hear("this is one two", 0.0)
    assert desk.texts == ["this is one two", "three four"]
    assert [settled for _, settled in desk.published] == [SECOND, 5 * SECOND // 2]
    assert not desk.scribe.busy


async def test_it_waits_only_where_somebody_may_have_spoken(desk: Desk) -> None:
    desk.send(2)
    desk.send(1, peak=9000)
    await desk.hear("three four", 2.0)
    assert desk.texts == ["three four"]


async def test_it_does_not_wait_for_ever(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold, "WAIT_S", 0.05)
    desk.send(1, peak=9000)
    desk.send(1)
    desk.send(1, peak=9000)
    await desk.hear("three four", 2.0)
    await desk.scribe.publish()
    assert desk.texts == []
    await asyncio.sleep(0.06)
    await desk.scribe.publish()
    assert desk.texts == ["three four"]
    await desk.hear("one two", 0.0)  # and what comes too late is not lost
    assert desk.texts == ["three four", "one two"]
    assert desk.watermark.offset == 5 * SECOND // 2


async def test_a_server_that_keeps_order_is_not_suspected_any_more(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "WAIT_S", 0.0)
    for _ in range(IN_ORDER):
        desk.endpoint.waited_in_vain()
    monkeypatch.setattr(hold, "WAIT_S", 60.0)
    desk.send(1, peak=9000)
    desk.send(1)
    desk.send(1, peak=9000)
    await desk.hear("three four", 2.0)
    assert desk.texts == ["three four"]
    await desk.hear("one two", 0.0)
    assert not desk.endpoint.keeps_order  # unless it once does not


async def test_when_the_server_has_said_everything_nothing_waits(desk: Desk) -> None:
    desk.send(1, peak=9000)
    desk.send(1)
    desk.send(1, peak=9000)
    await desk.hear("three four", 2.0)
    await desk.scribe.publish(all_=True)
    assert desk.texts == ["three four"]


async def test_a_new_socket_forgets_what_waited_and_repeats_nothing(desk: Desk) -> None:
    desk.send(1, peak=9000)
    await desk.hear("one two", 0.0)
    desk.send(1)
    desk.send(1, peak=9000)
    desk.send(1)
    desk.send(1, peak=9000)
    await desk.hear("five six", 4.0)
    desk.watermark.restart()
    desk.sent = desk.watermark.offset // 256 * 256
    assert desk.sent < desk.watermark.offset
    desk.scribe.begin(desk.endpoint, desk.sent, again=True)
    assert not desk.scribe.busy
    desk.send(5, peak=9000)
    await desk.hear("two three four", 0.0)
    assert desk.texts[1] == "three four"  # "two" was the end of what came before


async def test_a_final_without_times_covers_the_first_utterance_that_has_none(desk: Desk) -> None:
    for _ in range(2):
        desk.send(1, peak=9000)
        desk.send(0.6)
    await desk.hear("one two", 0.0, timed=False)
    assert desk.published == [("one two", 31 * 256)]
    await desk.hear("three four", 0.0, timed=False)
    assert desk.watermark.offset == pytest.approx(2.6 * SECOND, abs=512)


async def test_a_final_without_times_of_a_server_that_lags_covers_what_it_must_have_heard(desk: Desk) -> None:
    for _ in range(12):
        desk.send(1, peak=9000)
        desk.send(1)
    await desk.hear("words", 0.0, timed=False)
    assert 14 * SECOND < desk.watermark.offset <= 16 * SECOND


async def test_a_final_without_times_said_again_is_told_by_the_audio(desk: Desk) -> None:
    desk.send(1, peak=9000)
    desk.send(9)
    await desk.hear("no", 0, timed=False)
    await desk.hear("no", 0, timed=False)
    assert desk.texts == ["no"]  # nobody has spoken since
    desk.send(1, peak=9000)
    desk.send(9)
    await desk.hear("no", 0, timed=False)
    assert desk.texts == ["no", "no"]  # somebody has
