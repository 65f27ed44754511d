import os
import time

import pytest

from bridge.errors import UsageError
from bridge.local.load.process import Process


def test_this_process_is_seen_as_it_sees_itself() -> None:
    before = time.process_time()
    seen = Process(os.getpid()).cpu_s
    after = time.process_time()
    rss, anonymous = Process(os.getpid()).memory_kb

    assert before <= seen <= after
    assert 1000 < anonymous < rss


def test_nobody_is_seen_where_nobody_is() -> None:
    nobody = Process(2**22 + 1)  # beyond the kernel's highest pid_max

    with pytest.raises(UsageError, match="nothing can be told of process 4194305"):
        _ = nobody.cpu_s
    with pytest.raises(UsageError, match="nothing can be told of process 4194305"):
        _ = nobody.memory_kb
