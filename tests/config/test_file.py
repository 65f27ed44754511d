"""Files that are none, and where in a file a key stands."""

import os
from pathlib import Path

import pytest

from bridge.config.file import MAX_BYTES, NO_FILE, KeyPath, read
from bridge.config.values import FromEnvironment
from bridge.errors import ConfigError


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(path, {})
    return str(caught.value).removeprefix(str(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.toml"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ": the configuration file is empty"),
        (b" \n\n", ": the configuration file is empty"),
        (b"\xef\xbb\xbf[server]\n", " line 1: starts with a byte order mark: save the file as UTF-8 without one"),
        ("[server]\n".encode("utf-16"), " line 1: starts with a byte order mark: save the file as UTF-8 without one"),
        ("\n[whisper]\nprompt = 'Café'\n".encode("latin-1"), " line 3: is not UTF-8: save the file in that encoding"),
        (b"a" * (MAX_BYTES + 1), ": the configuration file is larger than 1000000 bytes"),
        (b"#" * 10_000_000, ": the configuration file is larger than 1000000 bytes"),
        (b"a = " + b"[" * 9_000, ": tables and lists are nested too deeply"),
        (b".".join([b"a"] * 90_000) + b" = 1", ": tables and lists are nested too deeply"),
        (b"a = " + b"9" * 5_000, ": is not valid TOML: a value is out of range"),
        (b"a = 1\n\x00", " line 2: is not valid TOML: Invalid statement"),
        (b"[server", ": is not valid TOML: Expected ']' at the end of a table declaration"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_used(path: Path, content: bytes, expected: str) -> None:
    assert refusal(path, content) == expected


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in [
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (tmp_path / "none", "does not exist"),
    ]:
        with pytest.raises(ConfigError, match=reason):
            read(path, {})
    with pytest.raises(ConfigError, match="File name too long"):
        read(tmp_path / ("x" * 300), {})


def test_a_file_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    path.write_text("[server]")
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        read(path, {})


def test_variables_are_replaced_everywhere(path: Path) -> None:
    path.write_text('a = "${X}-${X}"\nb = [["${X}"]]\nc = { d = "${Y}" }\ne = "$X {X}"\n')
    file = read(path, {"X": "1", "Y": ""})
    assert file.values == {"a": "1-1", "b": [["1"]], "c": {"d": ""}, "e": "$X {X}"}
    assert isinstance(file.values["a"], FromEnvironment)
    assert not isinstance(file.values["e"], FromEnvironment)
    assert not file.problems


def test_variables_that_are_missing_or_misspelled(path: Path) -> None:
    path.write_text('[s]\na = "${X}"\nb = ["${Y", "${}", "${A-B}"]\n')
    file = read(path, {"Y": "1", "A": "2"})
    assert file.problems == (
        (("s", "a"), "needs the environment variable X, which is not set"),
        (("s", "b", 0), "has a ${ without a name and } behind it"),
        (("s", "b", 1), "has a ${ without a name and } behind it"),
        (("s", "b", 2), "has a ${ without a name and } behind it"),
    )


TEXT = '''\
top = 1
[whisper]   # a comment
"language" = "en"
prompt = """
[server]
port = 1
"""
vad . threshold = 0.5
list = [
  "one",
  "two",
]
[[numbers]]
number = "x"
[ numbers.vad ]
threshold = 1
[[numbers]]
vad = { threshold = 1 }
[server]
port = 2
'''


@pytest.mark.parametrize(
    ("key", "line"),
    [
        (("top",), 1),
        (("whisper",), 2),
        (("whisper", "language"), 3),
        (("whisper", "prompt"), 4),
        (("whisper", "vad", "threshold"), 8),
        (("whisper", "list", 1), 9),
        (("numbers",), 13),
        (("numbers", 0), 13),
        (("numbers", 0, "number"), 14),
        (("numbers", 0, "vad", "threshold"), 16),
        (("numbers", 1, "number"), 17),
        (("numbers", 1, "vad", "threshold"), 18),
        (("server", "port"), 20),
        (("server", "nothing"), 19),
    ],
)
def test_the_line_of_a_key(path: Path, key: KeyPath, line: int) -> None:
    path.write_text(TEXT)
    assert read(path, {}).where(key) == f"{path} line {line}: "


def test_the_place_of_a_key_that_no_file_has(path: Path) -> None:
    path.write_text(TEXT)
    assert read(path, {}).where(("journal", "path")) == f"{path}: "
    assert NO_FILE.where(("journal", "path")) == ""
