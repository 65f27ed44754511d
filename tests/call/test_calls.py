import asyncio
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.call import calls as module
from bridge.call import carrier as carrier_module
from bridge.local.twilio.script import Script
from bridge.outbox.lease import Erased, Fenced
from tests.doubles.bridge import Setup, running
from tests.doubles.numbered import NumberedWhisper, speech


async def live(setup: Setup, whisper: NumberedWhisper) -> asyncio.Task[Any]:
    """A call that would go on for a minute."""
    task = asyncio.create_task(setup.call({"inbound": speech(range(200))}, Script()).run())
    await setup.receiver.wait_for_type("transcript.final")
    assert len(setup.bridge.calls) == 1
    assert whisper.connections
    return task


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_drain_waits_for_calls_until_it_is_in_a_hurry(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        task = await live(setup, whisper)
        hurry = asyncio.Event()
        draining = asyncio.create_task(setup.bridge.calls.drain(3600, hurry))
        await asyncio.sleep(0.1)
        assert not draining.done()
        hurry.set()
        await draining
        (call,) = setup.bridge.calls
        call.end("test")
        await setup.bridge.calls.finish(10, hurry, 10)
        ended = await setup.receiver.wait_for_type("call.ended")
        assert (ended.data["reason"], ended.data["complete"]) == ("test", True)
        assert len(setup.bridge.calls) == 0
        await cancelled(task)


async def test_what_is_cut_short_stays_on_disk(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper:
        async with running(tmp_path, whisper.url) as setup:
            task = await live(setup, whisper)
            await setup.bridge.calls.abandon()
            assert len(setup.bridge.calls) == 0
            await cancelled(task)
        (journal,) = (tmp_path / "outbox" / "journal").glob("*/CA*/inbound")
        assert (journal / "ends").exists()
        assert list(journal.glob("*.ulaw"))


async def test_ended_calls_are_remembered_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        sids = []
        for _ in range(3):
            report = await setup.call({"inbound": speech(range(2))}, Script(speed=4)).run()
            await setup.ended(report.call_sid)
            while setup.bridge.calls.get(report.call_sid):
                await asyncio.sleep(0.01)
            sids.append(report.call_sid)
        assert [setup.bridge.calls.has_ended(sid) for sid in sids] == [False, True, True]


async def test_a_stream_that_brings_nothing_any_more_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_module, "IDLE_S", 0.4)
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        script = Script(speed=4, ending="open", callbacks=False, open_s=5)
        task = asyncio.create_task(setup.call({"inbound": speech(range(3))}, script).run())
        ended = await setup.receiver.wait_for_type("call.ended")
        assert ended.data["reason"] == "idle"
        await cancelled(task)


async def test_a_pause_of_twilio_does_not_hold_the_last_words_back(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        script = Script(speed=4, ending="open", callbacks=False, open_s=5)
        audio = speech(range(3))[: -60 * 8]  # ends in a word: only silence from us can end the utterance
        task = asyncio.create_task(setup.call({"inbound": audio}, script).run())
        final = await setup.receiver.wait_for_type("transcript.final", timeout=4)
        assert final.data["text"] == "w0 w1 w2"
        await cancelled(task)


async def test_a_whisper_that_does_not_close_delays_the_end_once_not_per_call(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper:
        whisper.deaf = True
        async with running(tmp_path, whisper.url) as setup:
            tasks = [
                asyncio.create_task(setup.call({"inbound": speech(range(50))}, Script()).run())
                for _ in range(6)
            ]
            while len(whisper.connections) < 12:
                await asyncio.sleep(0.02)
            began = asyncio.get_running_loop().time()
            await setup.bridge.calls.abandon()
            assert asyncio.get_running_loop().time() - began < 6
            for task in tasks:
                await cancelled(task)


async def test_a_defect_of_the_publisher_ends_the_call_and_not_the_bridge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        outbox = setup.bridge._services.outbox

        async def defect(*_: object, **__: object) -> None:
            raise ValueError("a hole in the sequence")

        monkeypatch.setattr(outbox, "publish", defect)
        task = asyncio.create_task(setup.call({"inbound": speech(range(50))}, Script(speed=4)).run())
        while not whisper.connections:
            await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while len(setup.bridge.calls):
                await asyncio.sleep(0.01)
        await cancelled(task)
        monkeypatch.undo()
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        assert (await setup.ended(report.call_sid))[-1].data["complete"]


async def test_drain_waits_until_the_end_of_every_call_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        outbox = setup.bridge._services.outbox
        publish = outbox.publish

        async def slow(*arguments: Any, ended: bool = False, **options: Any) -> Any:
            await asyncio.sleep(0.5 if ended else 0)
            return await publish(*arguments, ended=ended, **options)

        monkeypatch.setattr(outbox, "publish", slow)
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        await setup.bridge.drain(asyncio.Event())
        events = await setup.ended(report.call_sid, timeout=2)
        assert events[-1].data["complete"]


async def test_an_erased_call_is_over_and_its_audio_gone(tmp_path: Path) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        task = await live(setup, whisper)
        (call,) = setup.bridge.calls
        call_sid = call.about.call_sid
        earlier = tmp_path / "outbox" / "journal" / "another" / f"{call_sid}.1" / "inbound"
        earlier.mkdir(parents=True)
        assert await setup.bridge.calls.erase(call_sid)
        assert not list((tmp_path / "outbox" / "journal").glob("*/CA*"))
        assert len(setup.bridge.calls) == 0
        assert setup.bridge.calls.has_ended(call_sid)  # no new stream of it is admitted
        assert not await setup.bridge.calls.erase(call_sid)
        assert not await setup.bridge.calls.erase("CA" + "0" * 32)
        await cancelled(task)
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        assert (await setup.ended(report.call_sid))[-1].data["complete"]


@pytest.mark.parametrize(("refusal", "left"), [(Erased, 0), (Fenced, 1)])
async def test_a_call_that_somebody_else_erased_leaves_no_audio_unlike_one_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: type[Fenced], left: int
) -> None:
    async with NumberedWhisper() as whisper:
        async with running(tmp_path, whisper.url) as setup:
            task = await live(setup, whisper)

            async def refused(*_: object, **__: object) -> None:
                raise refusal("the call is no longer ours")

            monkeypatch.setattr(setup.bridge._services.outbox, "publish", refused)
            async with asyncio.timeout(5):
                while len(setup.bridge.calls):
                    await asyncio.sleep(0.01)
            await cancelled(task)
        assert len(list((tmp_path / "outbox" / "journal").glob("*/CA*"))) == left


async def test_audio_of_an_erased_call_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        task = await live(setup, whisper)

        async def refused(*_: object, **__: object) -> None:
            raise Erased("the call was erased")

        def full(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(setup.bridge._services.outbox, "publish", refused)
        monkeypatch.setattr("shutil.rmtree", full)
        told = ""
        async with asyncio.timeout(5):
            while "call_not_erased" not in told:
                await asyncio.sleep(0.01)
                told += "".join(capfd.readouterr())
        assert "could not be removed (Permission denied)" in told
        await cancelled(task)
        monkeypatch.undo()


async def test_audio_that_cannot_be_removed_does_not_keep_a_call_from_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    async with NumberedWhisper() as whisper, running(tmp_path, whisper.url) as setup:
        monkeypatch.setattr("shutil.rmtree", refuse)
        report = await setup.call({"inbound": speech(range(4))}, Script(speed=4)).run()
        assert (await setup.ended(report.call_sid))[-1].data["complete"]
        async with asyncio.timeout(5):
            while len(setup.bridge.calls):
                await asyncio.sleep(0.01)
        assert "journal_not_removed" in "".join(capfd.readouterr())
        monkeypatch.undo()


async def test_after_a_standstill_no_call_is_idle_before_its_media_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK_AFTER_S", 0.02)
    looks: list[float] = []
    async with running(tmp_path, "ws://127.0.0.1:9/") as setup:
        calls = setup.bridge.calls
        monkeypatch.setattr(type(calls), "__iter__", lambda _: iter([SimpleNamespace(idle=looks.append)]))
        async with asyncio.timeout(5):
            while not looks:
                await asyncio.sleep(0.001)
        before = len(looks)
        time.sleep(0.1)  # noqa: ASYNC251 - the process stands still
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(looks) == before
        async with asyncio.timeout(5):
            while len(looks) == before:
                await asyncio.sleep(0.001)
        monkeypatch.undo()
