"""Starts workers in milliseconds, by forking them from one process that has imported everything already.

Run as `python -m tests.chaos.nursery`: JSON lines come in on stdin (`{"start": SPEC}`, `{"signal": [PID, SIGNAL]}`)
and go out on stdout (`{"started": PID}`, `{"ended": [PID, STATUS]}`, as the processes' files and locks are
free). It has one thread, so that a fork is a fork of all of it. When stdin ends it kills what is left.
"""

import asyncio
import contextlib
import json
import os
import select
import signal
import sys
import traceback
from typing import Any, NoReturn

from tests.chaos.worker import Spec, work


def main() -> None:
    """Fork, signal and reap until stdin ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A child inherits this, and takes the signal when it is ready for it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    children: set[int] = set()
    commands = b""
    try:
        while True:
            readable, _, _ = select.select([0, woken], [], [])
            if woken in readable:
                os.read(woken, 4096)
                for pid, status in _reap(children):
                    _say({"ended": [pid, status]})
            if 0 in readable:
                read = os.read(0, 65536)
                if not read:
                    return
                *lines, commands = (commands + read).split(b"\n")
                for line in lines:
                    _obey(json.loads(line), children)
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)  # a child of ours that was not reaped: its pid is still its own
        with contextlib.suppress(BrokenPipeError):  # nobody is left to be told
            for pid in children:
                _, status = os.waitpid(pid, 0)
                _say({"ended": [pid, os.waitstatus_to_exitcode(status)]})


def _obey(command: dict[str, Any], children: set[int]) -> None:
    if "start" in command:
        pid = os.fork()
        if pid == 0:
            _be(Spec(**command["start"]))
        children.add(pid)
        _say({"started": pid})
    else:
        pid, number = command["signal"]
        if pid in children:
            os.kill(pid, number)


def _reap(children: set[int]) -> list[tuple[int, int]]:
    """Children that have ended: exit code, or the signal's number below zero."""
    ended = []
    for child in sorted(children):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            children.remove(pid)
            ended.append((pid, os.waitstatus_to_exitcode(status)))
    return ended


def _say(reply: dict[str, Any]) -> None:
    os.write(1, json.dumps(reply).encode() + b"\n")


def _be(spec: Spec) -> NoReturn:
    """What the forked child does; it never returns into the nursery."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(spec.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        asyncio.run(work(spec))
        code = 0
    except BaseException:  # noqa: BLE001 - nothing may get out of here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
