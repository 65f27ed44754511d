"""What every final and partial passes through before anybody sees, stores or sends it."""

import dataclasses

from bridge import metrics
from bridge.config import NumberSettings
from bridge.transcript.heard import Heard
from bridge.transcript.loudness import Loudness
from bridge.transcript.redact import Redactor
from bridge.transcript.suspect import NEAR, Reason, reasons


class Trust:
    """Labels what is doubtful and takes out what is private, as is wanted for one number."""

    def __init__(self, settings: NumberSettings) -> None:
        self._dropped = settings.transcript.drop_suspect
        self._redactor = Redactor(settings.transcript.redact, settings.number)

    def final(self, heard: Heard, loudness: Loudness) -> Heard:
        """A final as it may be published, given how loud its journal was. Doubts are about what was really heard."""
        peak = loudness.peak(heard.start, heard.end, NEAR)
        suspect = reasons(heard, peak)
        for reason in suspect:
            metrics.FINALS_SUSPECT.labels(reason).inc()
        return self._redactor.redact(dataclasses.replace(heard, suspect=suspect))

    def partial(self, heard: Heard) -> Heard:
        """A partial as it may be published."""
        return self._redactor.redact(heard, unfinished=True)

    def against(self, final: Heard) -> Reason | None:
        """The first reason for which the operator does not want this final at all."""
        return next((reason for reason in self._dropped if reason in final.suspect), None)
