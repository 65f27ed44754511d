"""Times as the API writes them."""

from datetime import UTC, datetime
from email.utils import format_datetime


def rfc_2822(at: float | None) -> str | None:
    """Seconds since 1970 as RFC 2822 has it, whole seconds; None if there is no such time."""
    return None if at is None else format_datetime(datetime.fromtimestamp(int(at), UTC))
