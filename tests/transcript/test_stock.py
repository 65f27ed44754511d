from pathlib import Path

import pytest

from bridge.transcript import stock
from bridge.transcript.stock import is_stock_phrase


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Thanks for watching!", True),
        ("THANKS FOR WATCHING", True),
        ("Don\u2019t forget to like and subscribe...", True),
        ("Thank you for watching. Thank you for watching. Thank you for watching.", True),
        ("Transcription by CastingWords", True),
        ("Thank you.", False),
        ("Thank you for watching the kids.", False),
        ("Yes. Thank you for watching.", False),
        ("Bye.", False),
        ("...", False),
        ("", False),
    ],
)
def test_stock_phrases(text: str, expected: bool) -> None:
    assert is_stock_phrase(text) is expected


def test_nothing_that_people_say_is_one() -> None:
    for path in (Path(__file__).parent / "sentences").glob("*.txt"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not is_stock_phrase(line)


def test_every_line_of_the_list_is_one() -> None:
    lines = Path(stock.__file__).with_name("stock.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 100
    assert all(is_stock_phrase(line.title() + ".") for line in lines if line.isascii())
    assert all(map(is_stock_phrase, lines))
