import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.transcript.email import addresses


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("My email is john.smith@gmail.com, thanks", ["john.smith@gmail.com"]),
        ("a+b_c@mail.example.co.uk or x@y.de.", ["a+b_c@mail.example.co.uk", "x@y.de"]),
        ("john @ example.com", ["john @ example.com"]),
        ("it is ann dot lee at example dot com", ["ann dot lee at example dot com"]),
        (
            "ann underscore lee 42 at mail dot example dot org",
            ["ann underscore lee 42 at mail dot example dot org"],
        ),
        ("j o h n at gmail dot com", ["j o h n at gmail dot com"]),
        ("J-O-H-N at gmail.com", ["J-O-H-N at gmail.com"]),
        ("john at gmail", ["john at gmail"]),
        ("john four two at yahoo dot com", ["john four two at yahoo dot com"]),
        ("john@", ["john@"]),  # a partial, before its domain
        ("take a look at acme dot com", []),
        ("you find us at acme.com", []),
        ("I work at amazon.com", []),
        ("let's meet at noon", []),
        ("at example dot com", []),
        ("he is at home. Com", []),
        ("", []),
    ],
)
def test_addresses(text: str, found: list[str]) -> None:
    assert [text[start:end] for start, end in addresses(text)] == found


PIECES = st.sampled_from(["at", "dot", "a", "@", ".", "com", "gmail", "-", "underscore", "4", "four"])


@given(st.text() | st.lists(PIECES).map(" ".join))
def test_any_text_can_be_read(text: str) -> None:
    for start, end in addresses(text):
        assert 0 <= start < end <= len(text)
