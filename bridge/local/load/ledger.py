"""What webhooks the calls of a load should bring, and what came: missing, doubled, out of order."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from bridge.local.load import delay
from bridge.local.receiver import Received


@dataclass(slots=True)
class _Account:
    """The webhooks of one call."""

    sequences: set[int] = field(default_factory=set)
    last: int = 0
    ended: bool = False

    @property
    def missing(self) -> int:
        """Events before the last one that did not come, and the last one itself."""
        return max(self.last - len(self.sequences), 0) + (not self.ended)


class Ledger:
    """Is told of each final when Whisper says it, and of each webhook when it comes. Times are of one clock."""

    def __init__(self, calls: Iterable[str]) -> None:
        self._calls = {call_sid: _Account() for call_sid in calls}
        self._ids: set[str] = set()
        self._said: dict[str, float] = {}
        self._posted: dict[str, float] = {}
        self._doubled = self._unverified = self._foreign = self._disordered = self._twice = 0

    def excuse(self, call_sid: str) -> None:
        """This call was never taken: nothing is expected of it."""
        self._calls.pop(call_sid, None)

    def said(self, finals: Mapping[str, float]) -> None:
        """Whisper told these finals, each with a text of its own."""
        self._said |= finals

    def received(self, webhook: Received, at: float) -> None:
        """A webhook came."""
        account = self._calls.get(webhook.call_sid)
        if not webhook.verified:
            self._unverified += 1
        elif account is None:
            self._foreign += 1
        elif webhook.webhook_id in self._ids:
            self._doubled += 1
        elif isinstance(sequence := webhook.data.get("sequence"), int):  # partials have none
            self._ids.add(webhook.webhook_id)
            self._disordered += sequence != account.last + 1
            account.sequences.add(sequence)
            account.last = max(account.last, sequence)
            account.ended = account.ended or webhook.type == "call.ended"
            if webhook.type in {"transcript.final", "transcript.late"}:
                text = str(webhook.data.get("text", ""))
                self._twice += text in self._posted
                self._posted.setdefault(text, at)

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to wait for."""
        return not self._missing and not self._unposted

    @property
    def problem(self) -> str:
        """What is wrong, in one sentence; empty: nothing. Doubles are allowed: delivery is at least once."""
        wrong = {
            "events missing": self._missing,
            "out of order": self._disordered,
            "with a wrong signature": self._unverified,
            "finals missing": self._unposted,
            "finals told twice": self._twice,
        }
        found = ", ".join(f"{count} {what}" for what, count in wrong.items() if count)
        return found and f"not all webhooks came as promised: {found}."

    def figures(self) -> dict[str, object]:
        """The counts, and how long finals took from Whisper to the webhook."""
        ways = [self._posted[text] - at for text, at in self._said.items() if text in self._posted]
        return {
            "events": len(self._ids),
            "missing": self._missing,
            "doubled": self._doubled,
            "out_of_order": self._disordered,
            "unverified": self._unverified,
            "of_other_calls": self._foreign,
            "finals": len(self._said),
            "finals_missing": self._unposted,
            "finals_twice": self._twice,
            "final_to_post_ms": delay.spread(np.array(ways)),
        }

    @property
    def _missing(self) -> int:
        return sum(account.missing for account in self._calls.values())

    @property
    def _unposted(self) -> int:
        return len(self._said.keys() - self._posted.keys())
