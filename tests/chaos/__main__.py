"""The fault suites at their full sizes: `python -m tests.chaos [name ...]`, from the repository's root.

One line for each scenario: how long it took, its figures, and whether they are as they must be.
"""

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridge import log
from tests.chaos.scenario import SCENARIOS, Lacking, load

LIMIT_S: Final = 300.0
"""No scenario may take longer: the longest, `node_loss`, takes 200 s on two processors."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="name", help=f"one of {', '.join(SCENARIOS)}")
    names = parser.parse_args(arguments).names
    for name in names:
        if name not in SCENARIOS:
            parser.error(f"there is no scenario {name}: choose from {', '.join(SCENARIOS)}")
    try:
        missed = [name for name in names or SCENARIOS if not _passes(name)]
    except KeyboardInterrupt:
        return 130
    return 1 if missed else 0


def _passes(name: str) -> bool:
    """Run one scenario and print its line; whether nothing was missed."""
    began = time.monotonic()
    passed, text = asyncio.run(_outcome(name))
    sys.stdout.write(f"{name:<15} {time.monotonic() - began:5.1f} s  {text}\n")
    sys.stdout.flush()
    return passed


async def _outcome(name: str) -> tuple[bool, str]:
    with tempfile.TemporaryDirectory(prefix="whisper-bridge-chaos-") as directory:
        try:
            async with asyncio.timeout(LIMIT_S):
                return True, f"{await load(name)(Path(directory))}: passed"
        except Lacking as lacking:
            return True, f"skipped: {lacking}"
        except AssertionError as error:
            return False, f"FAILED: {error}"
        except TimeoutError:
            return False, f"FAILED: it did not end, or something in it did not, within {LIMIT_S:.0f} s"


if __name__ == "__main__":
    log.configure(logging.CRITICAL)  # some scenarios run a whole bridge in this process
    raise SystemExit(main())
