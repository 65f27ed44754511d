"""The rows of calls that a busy installation has, the same for either store.

Written at once: through the outbox it would take minutes, and only what comes then is measured.
"""

from collections.abc import Mapping, Sequence
from hashlib import md5, sha256
from typing import Any, Final

from bridge import events
from bridge.outbox.outbox import lane_name

ENDPOINTS: Final = tuple(f"https://agent{number}.example/transcripts" for number in range(10))
"""Webhooks that answer."""

DEAD: Final = "https://dead.example/transcripts"
"""One that does not: half of its lanes wait for their next attempt, the others are due."""

BEGUN: Final = 2
"""The next sequence of a call that is alive: it has told that it started."""

SPREAD_S: Final = 600
"""Calls that are alive began within so long."""

FINAL: Final = "transcript.final"
TEXT: Final = "I would like to move my appointment to Thursday if that is possible."

COLUMNS: Final[Mapping[str, Sequence[str]]] = {
    "calls": (
        *("call_sid", "owner", "epoch", "next_sequence", "ended", "erased", "spoken", "meta"),
        *("created_at", "seen_at", "node"),
    ),
    "lanes": ("lane", "endpoint", "call_sid", "head", "next", "attempts", "first_failure", "due_at"),
    "watermarks": ("call_sid", "track", "position"),
    "events": (
        *("lane", "position", "sequence", "event_id", "type", "body", "sha256", "state", "created_at"),
        *("delivered_at", "tries"),
    ),
}
"""Those that are not as they are by default."""

_META: Final = b'{"about": "' + b"x" * 300 + b'"}'
"""As long as what is noted of a call."""

_STARTED: Final = 450
"""Bytes of a `call.started`."""

Rows = dict[str, list[tuple[Any, ...]]]
"""By table."""


def call_sid(number: int) -> str:
    """The name of a call: as with Twilio's, one says nothing of the next."""
    return f"CA{md5(str(number).encode(), usedforsecurity=False).hexdigest()}"


def endpoint(number: int) -> str:
    """Where a call's events go."""
    return ENDPOINTS[number % len(ENDPOINTS)]


def node(number: int, share: int) -> str:
    """Who has a call, where each node has its share of them."""
    return f"node{number // share}"


def marks(position: int) -> dict[str, int]:
    """What a call says of how far its two tracks are settled: on its own journals, and on the call's clock."""
    return {"inbound.0123456789abcdef": position, "inbound": position}


def alive(numbers: range, share: int, now: float) -> Rows:
    """Calls that go on, `share` for each node; nothing of them waits."""
    rows: Rows = {table: [] for table in COLUMNS}
    for number in numbers:
        sid, to = call_sid(number), endpoint(number)
        begun = now - number % SPREAD_S - number % 977 / 977
        lane = lane_name(to, sid)
        body, identity = final(number, 1)[:_STARTED], events.event_id(sid, to, 1, "call.started")
        rows["calls"].append(
            (sid, "bridge", 1, BEGUN, False, False, True, _META, begun, now, node(number, share))
        )
        rows["lanes"].append((lane, to, sid, BEGUN, BEGUN, 0, None, now))
        rows["watermarks"] += [(sid, track, at) for track, at in marks(0).items()]
        rows["events"].append(
            (lane, 1, 1, identity, "call.started", body, sha256(body).digest(), "done", now, now, 1)
        )
    return rows


def dead(numbers: range, now: float) -> Rows:
    """Calls that are over, each with an event that waits for the endpoint that is down."""
    rows: Rows = {table: [] for table in COLUMNS}
    for number in numbers:
        sid = call_sid(number)
        lane = lane_name(DEAD, sid)
        rows["calls"].append((sid, "bridge", 1, 2, True, False, True, _META, now, now, ""))
        backoff = (5, now, now + 600) if number % 2 else (0, None, now)
        rows["lanes"].append((lane, DEAD, sid, 1, 2, *backoff))
        body, identity = final(number, 1), events.event_id(sid, DEAD, 1, FINAL)
        rows["events"].append(
            (lane, 1, 1, identity, FINAL, body, sha256(body).digest(), "pending", now, None, 0)
        )
    return rows


def final(number: int, sequence: int) -> bytes:
    """The body of a final of thirteen words, each with its time."""
    start_ms = sequence * 5000
    words = [
        events.Word(word, start_ms + 280 * place, start_ms + 280 * place + 240, 0.98)
        for place, word in enumerate(TEXT.split())
    ]
    data = events.TranscriptFinalData(
        call_sid=call_sid(number),
        account_sid="AC" + "2" * 32,
        stream_sid="MZ" + "1" * 32,
        from_="+15550100",
        to="+15550199",
        direction="inbound",
        parameters={},
        track="inbound",
        text=TEXT,
        start_ms=start_ms,
        end_ms=words[-1].end_ms,
        language="en",
        log_prob=-0.21,
        words=words,
        suspect=[],
        recovered=False,
        sequence=sequence,
    )
    return events.encode(
        events.TranscriptFinal(timestamp=events.timestamp(1_787_392_800.0 + sequence), data=data)
    )
