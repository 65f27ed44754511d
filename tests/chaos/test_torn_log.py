from pathlib import Path

import pytest

from tests.chaos.torn_log import KINDS, Scene, _require, run


async def test_a_torn_log_opens_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    figures = await run(tmp_path, images=30)
    assert set(figures.images) == set(KINDS)
    assert figures.images.total() > figures.whole >= figures.images["checkpoint"]


@pytest.mark.parametrize(
    ("found", "whole", "fits"),
    [
        ({"CA1": [b"1", b"2"]}, False, True),
        ({"CA1": [b"1", b"2", b"3", b"4"]}, True, True),
        ({"CA1": [b"1", b"2", b"3", b"4"]}, False, False),
        ({"CA1": [b"1", b"2", b"3"]}, True, False),
        ({"CA1": [b"1"]}, False, False),
        ({"CA1": [b"1", b"x"]}, False, False),
        ({}, False, False),
    ],
)
def test_what_is_missing_is_seen(found: dict[str, list[bytes]], whole: bool, fits: bool) -> None:
    scene = Scene(b"", b"", b"", 0, 0, {"CA1": [b"1", b"2"]}, {"CA1": [b"3", b"4"]})
    if fits:
        _require(scene, found, whole=whole, image="it")
    else:
        with pytest.raises(AssertionError, match=r"it: CA1 has \d events"):
            _require(scene, found, whole=whole, image="it")
