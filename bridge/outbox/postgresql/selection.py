"""The events that an operator means, as a condition in SQL."""

from collections.abc import Collection
from typing import Any

from bridge.outbox.outbox import Selection, State

ANY: frozenset[State] = frozenset(("pending", "done", "dead", "erased"))


def where(
    selection: Selection, states: Collection[State], endpoints: list[str] | None, *, first: int
) -> tuple[str, list[Any]]:
    """A condition on events joined with their lanes, and its values, which are arguments from `$first` on.

    `endpoints` are what the selection's URL or tag stands for; None: it names none.
    """
    # As constants: an index of events in one state is of no use to a statement that gets the state later.
    terms = [" or ".join(f"state = '{state}'" for state in sorted(ANY & set(states))) or "false"]
    if set(states) == {"pending"}:
        terms.append("head < next and position >= head")
    values: list[Any] = []
    for term, value in (
        ("event_id = any(${}::text[])", list(selection.event_ids) or None),
        ("call_sid = ${}", selection.call_sid or None),
        ("endpoint = any(${}::text[])", endpoints),
        ("created_at >= ${}::float8", selection.since),
        ("created_at < ${}::float8", selection.until),
    ):
        if value is not None:
            terms.append(term.format(first + len(values)))
            values.append(value)
    return " and ".join(f"({term})" for term in terms), values


def indexed(selection: Selection, states: Collection[State]) -> bool:
    """Whether selected events are found without a look at all the others."""
    return bool(selection.event_ids or selection.call_sid) or set(states) in ({"dead"}, {"pending"})
