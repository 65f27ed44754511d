"""What the bridge asks of an outbox about telephone numbers: what each did before it was attached."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Attachment:
    """A number that is attached, or is about to be."""

    number_sid: str
    """PN..., as Twilio names it."""
    number: str
    """As `To` has it: +15550199."""
    before: bytes
    """What Twilio did with its calls; opaque here."""
    then: str
    """Where its calls go on after the stream has started; empty: nowhere, the line is kept open."""
    then_method: str
    """POST or GET."""


class Attachments(Protocol):
    """The attached numbers. Every method may raise `OutboxDown`."""

    async def attach(self, attachment: Attachment) -> Attachment:
        """Remember a number, instead of what was remembered of it; returns what is stored."""

    async def detach(self, number_sid: str) -> None:
        """Forget a number."""

    async def attached(self) -> list[Attachment]:
        """All of them, in the order of their numbers."""
