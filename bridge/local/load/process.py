"""What a process has used, seen from outside."""

import time
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import UsageError


@dataclass(frozen=True, slots=True)
class Process:
    """One process, by its id. Reading raises UsageError when it is not there, or when this system cannot tell."""

    pid: int

    @property
    def cpu_s(self) -> float:
        """Seconds of processor time that it has used, all threads, user and system.

        `utime + stime` of /proc/PID/stat, but in nanoseconds: this is what clock_getcpuclockid(3) makes of a pid.
        """
        try:
            return time.clock_gettime((~self.pid << 3) | 2)
        except (OSError, AttributeError, OverflowError):
            raise self._unknown() from None

    @property
    def memory_kb(self) -> tuple[int, int]:
        """Resident kB: all of it, and what is not backed by files (the journals are)."""
        try:
            lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
            fields = {line.partition(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
            return int(fields["VmRSS"]), int(fields["RssAnon"])
        except (OSError, KeyError):
            raise self._unknown() from None

    def _unknown(self) -> UsageError:
        return UsageError(
            f"nothing can be told of process {self.pid}: it does not run, or this is not Linux."
        )
