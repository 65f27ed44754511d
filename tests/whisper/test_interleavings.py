"""Faults, rotation, hold and failover in whatever order chance brings them: every word comes once, in order."""

from pathlib import Path
from random import Random

import pytest

from bridge.whisper import lifespan
from bridge.whisper.endpoint import Endpoint
from tests.doubles.haste import haste
from tests.doubles.numbered import NumberedWhisper, speech
from tests.doubles.track import numbered, track
from tests.doubles.troubles import Troubles

SPEED = 20
WORDS = 90


@pytest.mark.parametrize("seed", range(8))
async def test_every_word_comes_once_and_in_order(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = Random(seed)
    async with NumberedWhisper() as first, NumberedWhisper() as second:
        for number, server in enumerate((first, second)):
            Troubles(seed + 1000 * number, cold_s=4 / SPEED).afflict(server)
            server.partials = chance.random() < 0.5
            server.reorders = chance.random() < 0.3
            server.repeats = chance.random() < 0.3
            server.numbers = chance.random() < 0.5
            server.overlaps = chance.choice((0, 1, 2))
            server.health = chance.choice(("answered", "ignored"))
        endpoints = tuple(Endpoint(server.url, "", "auto") for server in (first, second))
        with haste(SPEED):
            if chance.random() < 0.5:  # rotate every few seconds
                for endpoint in endpoints:
                    endpoint.lifespan.limit_s = chance.uniform(5, 15) / SPEED
                    monkeypatch.setattr(lifespan.Lifespan, "dropped", lambda *_: False)
            count = chance.choice((1, 2))
            async with track(tmp_path, first, endpoints=endpoints[:count], replay_speed=1.5 * SPEED) as call:
                # A later final that comes first waits only if it leaves more than `hold.ONSET` before it: two words.
                least = 2 + max(first.overlaps * first.reorders, second.overlaps * second.reorders)
                await call.live(speech(range(WORDS), utterance=chance.randint(least, 9)), SPEED)
                await call.to_the_end(timeout=40)
                said = numbered(range(WORDS))
                lost, again = set(said) - set(call.words), len(call.words) - len(set(call.words))
                assert call.words == said, f"lost {lost}, {again} repeated: {call.words}"
                starts = [final.start for final in call.finals]
                assert starts == sorted(starts)
                assert (call.lost, call.session.gave_up) == ([], False)
