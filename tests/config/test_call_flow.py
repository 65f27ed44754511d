"""Where a call goes on: what `then` may be, and what it may not."""

import os
from pathlib import Path

import pytest

from bridge.config import CallFlow, load
from bridge.config.call_flow import MAX_BYTES, leads_to
from bridge.errors import ConfigError


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("BRIDGE_", "TWILIO_", "BASETEN_", "XDG_STATE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def flow(directory: Path, then: str, public_url: str = "") -> CallFlow:
    path = directory / "conf" / "bridge.toml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f'[server]\npublic_url = "{public_url}"\n[[numbers]]\nnumber = "+15551234567"\nthen = {then}\n'
    )
    return load(path).for_number("+15551234567").then


def refusal(directory: Path, then: str, public_url: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        flow(directory, then, public_url)
    return str(caught.value)


def test_a_url_as_it_is(tmp_path: Path) -> None:
    url = "https://user:word@example.com/ivr.xml?a=1&b=2"
    assert flow(tmp_path, f'"{url}"') == CallFlow(url)
    assert not flow(tmp_path, '""')


@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_beside_the_configuration(tmp_path: Path, *, absolute: bool) -> None:
    folder = tmp_path / "conf" / "flows"
    folder.mkdir(parents=True)
    (folder / "hold.xml").write_bytes(
        '<?xml version="1.0" encoding="ISO-8859-1"?><!-- ours --><Response><Say>müde</Say></Response>'.encode(
            "latin-1"
        )
    )
    name = str(folder / "hold.xml") if absolute else "flows/hold.xml"
    found = flow(tmp_path, f'"{name}"')
    assert found == CallFlow(twiml="<Response><Say>müde</Say></Response>")
    assert found


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is not valid XML line 1"),
        (b"<Response>\n<Say>", "is not valid XML line 2"),
        (b"<Reply/>", "whose root is <Response>"),
        (b'<?xml version="1.0" encoding="klingon"?><Response/>', "is not valid XML"),
        (b'<!DOCTYPE Response [<!ENTITY a "b">]><Response>&a;</Response>', "without a DOCTYPE"),
        ("<!DOCTYPE a><Response/>".encode("utf-16"), "without a DOCTYPE"),
        (b"<Response>" + b"<a>" * 20 + b"</a>" * 20 + b"</Response>", "with verbs at most 20 deep"),
        (b"<a>" * 5000, "with verbs at most 20 deep"),
        (b"<Response>" + b" " * MAX_BYTES + b"</Response>", "61440 bytes at most"),
        (b"<Response>" + b">" * (MAX_BYTES // 3) + b"</Response>", "61440 bytes at most"),
    ],
)
def test_what_is_no_twiml_file(tmp_path: Path, content: bytes | None, sentence: str) -> None:
    (tmp_path / "conf").mkdir()
    if content is not None:
        (tmp_path / "conf" / "x.xml").write_bytes(content)
    told = refusal(tmp_path, '"x.xml"')
    assert told.startswith(f"{tmp_path}/conf/bridge.toml line 5: numbers[0].then must name a TwiML file")
    assert sentence in told
    assert "\n" not in told


def test_something_else_of_that_name(tmp_path: Path) -> None:
    (tmp_path / "conf" / "x.xml").mkdir(parents=True)
    assert "there is something else of that name" in refusal(tmp_path, '"x.xml"')
    os.mkfifo(tmp_path / "conf" / "y.xml")  # reading it would wait for ever
    assert "there is something else of that name" in refusal(tmp_path, '"y.xml"')


@pytest.mark.parametrize("then", ['"x.twiml"', '"ftp://example.com/x.xml"', '"x\\u0000.xml"', '"https://"'])
def test_neither_a_url_nor_a_file(tmp_path: Path, then: str) -> None:
    told = refusal(tmp_path, then)
    assert "must be a URL such as https://example.com/path" in told
    assert "or the name of a TwiML file that ends in .xml" in told


def test_another_type(tmp_path: Path) -> None:
    assert "numbers[0].then must be a text in quotes" in refusal(tmp_path, "5")


def test_a_circle_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, '"https://B.example.com:443/up/twilio/voice?x=1"', "https://b.example.com/up")
    assert "line 5: numbers[0].then leads back to this bridge" in told


@pytest.mark.parametrize(
    ("url", "public_url", "leads"),
    [
        ("https://b.example.com/twilio/voice", "https://b.example.com", True),
        ("https://u:p@b.example.com/twilio/resume", "https://b.example.com:443", True),
        ("https://b.example.com/ivr", "https://b.example.com", False),
        ("https://b.example.com/twilio/voice", "https://b.example.com/up", False),
        ("http://b.example.com/twilio/voice", "https://b.example.com", False),
        ("https://b.example.com:8443/twilio/voice", "https://b.example.com", False),
        ("https://other.example.com/twilio/voice", "https://b.example.com", False),
        ("https://b.example.com:x/twilio/voice", "https://b.example.com", False),
        ("", "", False),
        ("/twilio/voice", "", False),
    ],
)
def test_what_leads_to_the_bridge(url: str, public_url: str, *, leads: bool) -> None:
    assert leads_to(url, public_url) is leads
