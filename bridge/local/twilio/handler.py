"""Where a call's documents come from, and what is asked when one of them cannot be had."""

from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass

from bridge.local.twilio.report import Document
from bridge.local.twilio.twiml import TwimlError, Verb, parse
from bridge.local.twilio.webhook import CallFailedError, Webhooks


@dataclass(frozen=True, slots=True)
class Handler:
    """A document's place: its URL, or the document itself as `twiml`, and the fallback behind it."""

    url: str = ""
    method: str = "POST"
    fallback_url: str = ""
    """Asked when a document of the call cannot be had or performed; empty: the call ends then.

    https://www.twilio.com/docs/usage/security/availability-reliability
    """
    fallback_method: str = "POST"
    twiml: str = ""
    status_callback: str = ""
    """Is told how the call goes on."""
    status_callback_method: str = "POST"
    events: tuple[str, ...] = ("completed",)
    """Which of `initiated`, `ringing`, `answered` and `completed` it is told."""


class Documents:
    """Fetches the documents of one call. `form` says what Twilio sends along, `seen` keeps what came of each."""

    def __init__(
        self, webhooks: Webhooks, form: Callable[[], dict[str, str]], seen: MutableSequence[Document]
    ) -> None:
        self._webhooks = webhooks
        self._form = form
        self._seen = seen

    async def verbs(self, at: Handler) -> Sequence[Verb] | None:
        """What is to be performed; None: a stranger's call flow, which is taken to keep the call up.

        Raises CallFailedError when neither the document nor the fallback can be had.
        """
        try:
            return await self._document(at.url, at.method, at.twiml)
        except CallFailedError as failed:
            if not at.fallback_url:
                raise
            error = {"ErrorCode": str(failed.code), "ErrorUrl": at.url}
            return await self._document(at.fallback_url, at.fallback_method, error=error)

    async def _document(
        self, url: str, method: str, twiml: str = "", error: dict[str, str] | None = None
    ) -> Sequence[Verb] | None:
        if twiml:
            try:
                return parse(twiml, url)
            except TwimlError as wrong:
                raise CallFailedError(f"the TwiML of the call is not valid: {wrong}", 12100) from None
        target = self._webhooks.reach(url)
        if target is None:
            self._seen.append(Document(url, ""))
            return None
        try:
            verbs = await self._webhooks.document(url, target, method, self._form() | (error or {}))
        except CallFailedError as failed:
            self._seen.append(Document(url, str(failed)))
            raise
        self._seen.append(Document(url, ""))
        return verbs
