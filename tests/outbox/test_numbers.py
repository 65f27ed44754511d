"""The telephone numbers that are attached, whatever stores them."""

from dataclasses import replace

from bridge.outbox.attachments import Attachment
from bridge.outbox.outbox import Outbox

ONE = Attachment("PN1", "+15550199", b'{"voice_url":"https://before.example/"}', "", "POST")
TWO = Attachment("PN2", "+15550101", b"\x00", "https://then.example/?a=b", "GET")


async def test_a_number_is_remembered_as_it_was_said_last(outbox: Outbox) -> None:
    assert await outbox.attached() == []
    assert await outbox.attach(ONE) == ONE
    again = replace(ONE, number="+15550100", before=b"ours", then="https://then.example/", then_method="GET")
    assert await outbox.attach(again) == again
    assert await outbox.attached() == [again]


async def test_numbers_come_in_their_order_until_they_are_forgotten(outbox: Outbox) -> None:
    await outbox.attach(ONE)
    await outbox.attach(TWO)
    assert await outbox.attached() == [TWO, ONE]
    await outbox.detach("PN2")
    await outbox.detach("PN2")
    assert await outbox.attached() == [ONE]
    await outbox.detach("PN1")
    new = replace(ONE, before=b"another")
    assert await outbox.attach(new) == new, "detached, it may be attached again"


async def test_they_are_there_after_a_restart(closed_outbox: Outbox) -> None:
    await closed_outbox.open()
    await closed_outbox.attach(TWO)
    await closed_outbox.close()
    await closed_outbox.open()
    assert await closed_outbox.attached() == [TWO]
    await closed_outbox.close()
