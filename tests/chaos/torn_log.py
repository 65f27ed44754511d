"""One machine: the power fails while a transaction is written, and leaves the outbox's log torn.

A transaction was on its way to SQLite's write-ahead log, everything before it was acknowledged. Crash images
are made of the log's tail: cut anywhere, followed by garbage or by what an older round of the log left there,
with sectors missing in the middle, with flipped bits; and, as a log is copied into the file while it is whole,
of a file whose pages are half written. Every image must open, with every acknowledged event in it, byte for
byte, and the last transaction wholly or not at all.
"""

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, Literal, get_args

from bridge.outbox.outbox import Outgoing
from bridge.outbox.sqlite import Sqlite
from tests.chaos import wal

ENDPOINT: Final = "https://receiver.example/"
DATABASE: Final = "outbox.sqlite3"
CALLS: Final = tuple(f"CA{number}" for number in range(5))
SECTOR: Final = 512
"""Bytes that a disk writes or does not."""

Kind = Literal["cut", "garbage", "sectors", "flipped", "checkpoint"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

Bodies = dict[str, list[bytes]]
"""Call -> its events' bodies, in order."""


@dataclass(slots=True)
class Figures:
    """What was opened."""

    images: Counter[Kind] = field(default_factory=Counter)
    events: int = 0
    """Acknowledged ones that were found again, over all images."""
    whole: int = 0
    """Images with the last transaction in them."""

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.images.items())
        return (
            f"{self.images.total()} crash images ({kinds}), all opened, lost 0 of {self.events} acknowledged "
            f"events, the last transaction whole in {self.whole} and absent in the others"
        )


@dataclass(frozen=True, slots=True)
class Scene:
    """The files just before and just after the last transaction, and what they hold."""

    database: bytes
    before: bytes
    """The log; what lies behind `start` is of an older round, or nothing."""
    after: bytes
    start: int
    """Where the last transaction begins in the log, in bytes."""
    end: int
    acknowledged: Bodies
    last: Bodies


async def run(directory: Path, *, images: int = 300, seed: int = 1) -> Figures:
    """Tear the log in `images` ways, and open what is left."""
    random = Random(seed)
    scenes = [await _play(directory / f"scene-{used}", random, used=used) for used in (False, True)]
    figures = Figures()
    for number in range(images):
        kind = KINDS[number % len(KINDS)]
        scene = scenes[number // len(KINDS) % len(scenes)]
        database, log = _torn(scene, kind, random)
        where = directory / f"image-{number}"
        where.mkdir()
        (where / DATABASE).write_bytes(database)
        (where / f"{DATABASE}-wal").write_bytes(log)
        whole = log[scene.start : scene.end] == scene.after[scene.start : scene.end]
        found = await _read(where)
        shutil.rmtree(where)
        _require(scene, found, whole=whole, image=f"image {number} ({kind})")
        figures.images[kind] += 1
        figures.events += sum(map(len, scene.acknowledged.values()))
        figures.whole += whole
    return figures


async def _play(directory: Path, random: Random, *, used: bool) -> Scene:
    """Publish to an outbox; with `used`, until its log was begun anew, so that old frames lie behind its end."""
    outbox, database = Sqlite(directory), directory / DATABASE
    await outbox.open()
    leases = {call_sid: await outbox.own_call(call_sid, "bridge", b"") for call_sid in CALLS}
    stored: Bodies = {call_sid: [] for call_sid in CALLS}

    async def publish(*lengths: int) -> str:
        call_sid = random.choice(CALLS)
        bodies = [random.randbytes(length) for length in lengths]
        events = [_event(call_sid, len(stored[call_sid]) + n, body) for n, body in enumerate(bodies, 1)]
        await outbox.publish(leases[call_sid], events, {"inbound": events[-1].sequence})
        stored[call_sid] += bodies
        return call_sid

    before = 0
    while used and wal.frames(database) >= before:
        before = wal.frames(database)
        await publish(random.choice((20, 2000, 20_000)))
    for _ in range(20):
        await publish(random.choice((20, 2000, 9000)))
    start, earlier = wal.end(database), wal.content(database)
    acknowledged = {call_sid: list(bodies) for call_sid, bodies in stored.items()}
    last = await publish(3000, 20, 9000)
    scene = Scene(
        database=database.read_bytes(),
        before=earlier,
        after=wal.content(database),
        start=start,
        end=wal.end(database),
        acknowledged=acknowledged,
        last={last: stored[last][-3:]},
    )
    await outbox.close()
    assert scene.start < scene.end, "the last transaction began the log anew: it cannot be torn"
    return scene


def _event(call_sid: str, sequence: int, body: bytes) -> Outgoing:
    return Outgoing(ENDPOINT, sequence, f"{call_sid}.{sequence}", "transcript.final", body)


def _torn(scene: Scene, kind: Kind, random: Random) -> tuple[bytes, bytes]:
    """The file and its log after the power failed."""
    log = bytearray(scene.after)
    if kind == "checkpoint":
        return _half_copied(scene, random), bytes(log)
    if kind == "flipped":
        for _ in range(random.randint(1, 8)):
            log[random.randrange(scene.start, scene.end)] ^= 1 << random.randrange(8)
    elif kind == "sectors":
        old = scene.before.ljust(len(log), b"\0")
        for at in range(scene.start // SECTOR * SECTOR, scene.end, SECTOR):
            if random.random() < 0.2:
                log[at : at + SECTOR] = old[at : at + SECTOR]
    else:
        at = _place(scene, random)
        log[at:] = scene.before[at:]  # nothing, if the log was growing
        if kind == "garbage":
            garbage = random.randbytes(random.randint(1, 3 * wal.FRAME))
            log[at : at + len(garbage)] = garbage
    return scene.database, bytes(log)


def _place(scene: Scene, random: Random) -> int:
    """Where the log is cut: near a boundary of frames, inside a frame's header, anywhere, or not at all."""
    boundary = random.randrange(scene.start, scene.end, wal.FRAME)
    places = (
        boundary + random.choice((-1, 0, 1)),
        boundary + random.randrange(wal.FRAME_HEADER),
        random.randrange(scene.start, scene.end),
        scene.end,
    )
    return max(scene.start, random.choices(places, weights=(3, 2, 4, 1))[0])


def _half_copied(scene: Scene, random: Random) -> bytes:
    """The file, with some pages of the log partly written to it: a whole log must mend that."""
    database = bytearray(scene.database)
    for number in set(wal.page_numbers(scene.after[: scene.end])):
        if random.random() < 0.5:
            at = (number - 1) * wal.PAGE
            written = random.randrange(1, wal.PAGE)
            database[at : at + written] = random.randbytes(written)
    return bytes(database)


async def _read(directory: Path) -> Bodies:
    """Open what is left, take everything out of it, and see that it takes another event for each call."""
    outbox = Sqlite(directory)
    await outbox.open()
    found = {}
    for lane in await outbox.claim("bridge", len(CALLS), 30):
        found[lane.call_sid] = [event.body for event in await outbox.peek(lane, 10_000)]
    for call_sid, bodies in found.items():
        lease = await outbox.own_call(call_sid, "bridge", b"")
        assert lease.next_sequence == len(bodies) + 1, f"{call_sid} goes on with {lease.next_sequence}"
        assert lease.watermarks == {"inbound": len(bodies)}, f"{call_sid} has watermarks {lease.watermarks}"
        await outbox.publish(lease, [_event(call_sid, lease.next_sequence, b"next")], {})
    await outbox.close()
    return found


def _require(scene: Scene, found: Bodies, *, whole: bool, image: str) -> None:
    for call_sid, bodies in scene.acknowledged.items():
        last = scene.last.get(call_sid, []) if whole else []
        got = found.get(call_sid, [])
        assert got == bodies + last, (
            f"{image}: {call_sid} has {len(got)} events, and not unchanged the "
            f"{len(bodies)} acknowledged ones with {len(last)} of the last transaction"
        )
