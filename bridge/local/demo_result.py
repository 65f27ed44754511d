"""What the demo has shown: figures over the webhooks that arrived, and whether they are good enough."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from bridge.local.deliveries import Deliveries, judge
from bridge.local.receiver import Received
from bridge.local.score import Score, word_error_rate
from bridge.local.twilio import CallReport, Track

WORST_RATE: Final = 0.25
"""Word error rate of a track beyond which the demo has failed."""

SPEAKERS: Final[Mapping[Track, str]] = {"inbound": "caller", "outbound": "agent"}


@dataclass(frozen=True, slots=True)
class Result:
    """The demo's figures. `problems` is empty when it succeeded."""

    deliveries: Deliveries
    finals: int
    ended: bool
    scores: Mapping[Track, Score]
    """Only of tracks whose script is known."""
    delays_s: Sequence[float]
    """From the sending of a final's last audio to its webhook, in seconds, ascending."""
    problems: Sequence[str]

    def delay_s(self, part: float) -> float | None:
        """A percentile of the delays by nearest rank, `part` 0.95 for p95; None without any final."""
        return self.delays_s[max(0, ceil(part * len(self.delays_s)) - 1)] if self.delays_s else None


def result(received: Sequence[Received], call: CallReport, said: Mapping[Track, str]) -> Result:
    """Judge a finished demo; `said` is the script of each track, as far as there is one."""
    deliveries = judge(received)
    finals = {one.webhook_id: one for one in reversed(received) if one.type == "transcript.final"}
    spoken = sorted(finals.values(), key=lambda one: one.data["start_ms"])
    ended = next((one for one in received if one.type == "call.ended" and one.accepted), None)
    scores = {
        track: word_error_rate(
            script, " ".join(one.data["text"] for one in spoken if one.data["track"] == track)
        )
        for track, script in said.items()
    }
    delays = [
        one.received_at - sent for one in spoken if (sent := call.sent_at(one.data["end_ms"])) is not None
    ]
    problems = [call.problem] if call.problem else []
    problems += deliveries.problems
    if ended is None and not any("call.ended" in problem for problem in problems):
        problems.append("call.ended never arrived.")
    if ended is not None and not ended.data["complete"]:
        problems.append("call.ended says that the transcript is not complete.")
    if deliveries.unverified:
        problems.append(f"{deliveries.unverified} of {deliveries.requests} signatures were not valid.")
    problems += [
        f"the {SPEAKERS[track]}'s word error rate is {score.rate:.2f}, above {WORST_RATE}."
        for track, score in scores.items()
        if score.rate > WORST_RATE
    ]
    return Result(deliveries, len(finals), ended is not None, scores, sorted(delays), problems)
