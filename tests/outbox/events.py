"""Events for the tests of an outbox, and short ways to put them in and to take them out."""

from typing import Protocol

from bridge.outbox.lease import LaneLease
from bridge.outbox.outbox import Outbox, Outgoing

A, B = "https://a.example/hook?key=secret", "https://b.example/hook"


class Clock(Protocol):
    now: float

    def __call__(self) -> float: ...


def event(sequence: int, endpoint: str = A, call: str = "CA1") -> Outgoing:
    body = f'{{"n":{sequence},"text":"žluťoučký"}}'.encode()
    return Outgoing(endpoint, sequence, f"evt_{call}_{sequence}", "transcript.final", body)


async def fill(outbox: Outbox, *events: Outgoing, call: str = "CA1") -> None:
    await outbox.publish(await outbox.own_call(call, "me", b""), events, {})


async def claim_one(outbox: Outbox) -> LaneLease:
    (lane,) = await outbox.claim("me", 10, 30)
    return lane


async def sequences(outbox: Outbox, lane: LaneLease) -> list[int]:
    return [stored.sequence for stored in await outbox.peek(lane)]


async def work_off(outbox: Outbox, *outcomes: str) -> None:
    """Claim every lane that is due, and ack or bury its events: `outcomes` for the first ones, then "ack"."""
    left = list(outcomes)
    for lane in await outbox.claim("me", 1000, 30):
        more = True
        while more and (stored := await outbox.peek(lane, 1)):
            if left and left.pop(0) == "bury":
                await outbox.bury(lane, stored[0].position, 500, "status 500")
            else:
                more = await outbox.ack(lane, stored[0].position)
        await outbox.release(lane)
