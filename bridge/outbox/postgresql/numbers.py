"""What the PostgreSQL outbox does about telephone numbers: which are attached, and what each did before."""

from bridge.outbox.attachments import Attachment
from bridge.outbox.postgresql.pool import Connection

_COLUMNS = "number_sid, number, before, onward, onward_method"


async def attach(connection: Connection, *, attachment: Attachment) -> Attachment:
    """Remember a number, instead of what was remembered of it."""
    row = await connection.fetchrow(
        f"""insert into whisper_bridge.attachments ({_COLUMNS}) values ($1, $2, $3, $4, $5)
            on conflict (number_sid) do update
            set number = excluded.number, before = excluded.before, onward = excluded.onward, onward_method = excluded.onward_method
            returning {_COLUMNS}""",  # noqa: S608 - constants
        attachment.number_sid,
        attachment.number,
        attachment.before,
        attachment.then,
        attachment.then_method,
    )
    return Attachment(*row)


async def detach(connection: Connection, *, number_sid: str) -> None:
    """Forget a number."""
    await connection.execute("delete from whisper_bridge.attachments where number_sid = $1", number_sid)


async def attached(connection: Connection) -> list[Attachment]:
    """All of them, in the order of their numbers."""
    rows = await connection.fetch(
        f"select {_COLUMNS} from whisper_bridge.attachments order by number, number_sid"  # noqa: S608 - constants
    )
    return [Attachment(*row) for row in rows]
