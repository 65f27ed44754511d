"""What the SQLite outbox does about telephone numbers: which are attached, and what each did before."""

import sqlite3

from bridge.outbox.attachments import Attachment

_COLUMNS = "number_sid, number, before, onward, onward_method"


def attach(db: sqlite3.Connection, *, attachment: Attachment) -> Attachment:
    """Remember a number, instead of what was remembered of it."""
    row = db.execute(
        f"""insert into attachments ({_COLUMNS}) values (?, ?, ?, ?, ?)
            on conflict (number_sid) do update
            set number = excluded.number, before = excluded.before, onward = excluded.onward, onward_method = excluded.onward_method
            returning {_COLUMNS}""",  # noqa: S608 - constants
        (
            attachment.number_sid,
            attachment.number,
            attachment.before,
            attachment.then,
            attachment.then_method,
        ),
    ).fetchone()
    return Attachment(*row)


def detach(db: sqlite3.Connection, *, number_sid: str) -> None:
    """Forget a number."""
    db.execute("delete from attachments where number_sid = ?", (number_sid,))


def attached(db: sqlite3.Connection) -> list[Attachment]:
    """All of them, in the order of their numbers."""
    rows = db.execute(f"select {_COLUMNS} from attachments order by number, number_sid")  # noqa: S608 - constants
    return [Attachment(*row) for row in rows]
