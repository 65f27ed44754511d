"""What a file and the environment together say, and every way in which they can be wrong."""

import os
import tomllib
import traceback
from pathlib import Path

import pytest

from bridge.config import Config, load
from bridge.config.sections import NumberConfig
from bridge.config.sentences import KEYS
from bridge.errors import ConfigError
from bridge.webhook.target import TargetRefused, Targets

SHIPPED = Path(__file__).parents[2] / "config" / "bridge.toml"
SECRET = "whsec_" + "QUJD" * 8
CANARY = "canary-93c1"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("BRIDGE_", "TWILIO_", "BASETEN_", "XDG_STATE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bridge.toml"


def refusal(path: Path | None, text: str | None = None) -> str:
    """What `load` says when it refuses."""
    if text is not None and path is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path)
    shown = "".join(traceback.format_exception(caught.value))
    assert CANARY not in shown, "a value stands in the error or in what it came from"
    return str(caught.value)


def test_the_shipped_file_says_the_defaults() -> None:
    assert load(SHIPPED).model_dump() == Config().model_dump()


def test_the_shipped_file_has_every_key() -> None:
    text = SHIPPED.read_text()
    for line in text.splitlines():
        if not line.startswith("#") and "=" in line:
            assert "#" in line or len(line) > 100, f"no reason beside {line}"
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line or line.startswith("# [[") else line
        for line in text.splitlines()
    )
    written = tomllib.loads(uncommented[uncommented.index("[server]") :])
    for *tables, key in KEYS:
        table = written
        for name in tables:
            table = table[name]
        assert key in table, f"{key} is not in config/bridge.toml"
    assert set(written["numbers"][0]) == set(NumberConfig.model_fields)


def test_the_shipped_file_loads_with_its_secrets_uncommented(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = {"BRIDGE_ADMIN_TOKEN": "admin", "TWILIO_ACCOUNT_SID": "AC1", "TWILIO_AUTH_TOKEN": "auth"}
    for name, value in {**secrets, "BASETEN_API_KEY": "key", "BRIDGE_WEBHOOK_SECRET": SECRET}.items():
        monkeypatch.setenv(name, value)
    lines = [
        line.removeprefix("# ") if '= "${' in line else line for line in SHIPPED.read_text().splitlines()
    ]
    path.write_text("\n".join(line for line in lines if not line.startswith(("webhook_", "whisper_"))))
    config = load(path)
    assert config.server.admin_token.get_secret_value() == "admin"
    assert config.twilio.account_sid == "AC1"
    assert config.twilio.own_token == "auth"
    assert config.whisper.api_key.get_secret_value() == "key"
    assert [secret.get_secret_value() for secret in config.webhook.secret] == [SECRET]


def test_where_the_file_is_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert load().server.port == 8080
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "bridge.toml").write_text("[server]\nport = 1\n")
    assert load().server.port == 1
    path.write_text("[server]\nport = 2\n")
    monkeypatch.setenv("BRIDGE_CONFIG", str(path))
    assert load().server.port == 2
    path.unlink()
    assert refusal(None) == f"{path}: the configuration file does not exist"


def test_the_environment_wins_over_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text('[server]\nport = 1\nhost = "::1"\n[webhook]\nevents = []\n[whisper]\ndialect = "seed"\n')
    for name, value in {
        "BRIDGE_SERVER__PORT": "2",
        "BRIDGE_SERVER__DRAIN_DEADLINE_S": "1.5",
        "BRIDGE_TWILIO__VERIFY_SIGNATURES": "False",
        "BRIDGE_TWILIO__AUTH_TOKEN": "new, old",
        "BRIDGE_SERVER__MAX_CALLS": "40",
        "BRIDGE_SERVER__TRUSTED_PROXIES": "10.0.0.0/8",
        "BRIDGE_WHISPER__MAX_CONNECTIONS": "100",
        "BRIDGE_WEBHOOK__EVENTS": "call.ended, transcript.final",
        "BRIDGE_WEBHOOK__ALLOW_PRIVATE_NETWORKS": '["10.0.0.0/8", "::1/128"]',
        "BRIDGE_WEBHOOK__SECRET": f"{SECRET},{SECRET}",
        "BRIDGE_WHISPER__DIALECT": "v1",
        "BRIDGE_WHISPER__VAD__THRESHOLD": "0.25",
        "BRIDGE_NUMBERS": '[{"number": "+15551234567", "language": "es", "partials": true}]',
    }.items():
        monkeypatch.setenv(name, value)
    config = load(path)
    assert (config.server.port, config.server.host, config.server.drain_deadline_s) == (2, "::1", 1.5)
    assert config.twilio.verify_signatures is False
    assert [token.get_secret_value() for token in config.twilio.auth_token] == ["new", "old"]
    assert (config.server.max_calls, config.whisper.max_connections) == (40, 100)
    assert [str(network) for network in config.server.trusted_proxies] == ["10.0.0.0/8"]
    assert config.webhook.events == ["call.ended", "transcript.final"]
    assert [str(network) for network in config.webhook.allow_private_networks] == ["10.0.0.0/8", "::1/128"]
    assert len(config.webhook.secret) == 2
    assert config.whisper.dialect == "v1"
    assert config.whisper.vad.threshold == 0.25
    assert config.for_number("+15551234567").whisper.language == "es"


def test_the_usual_names_of_secrets_count_where_nothing_is_written(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "usual")
    monkeypatch.setenv("BASETEN_API_KEY", "usual")
    monkeypatch.setenv("BRIDGE_WEBHOOK_SECRET", SECRET)
    path.write_text('[twilio]\nauth_token = "written"\n')
    config = load(path)
    assert config.twilio.own_token == "written"
    assert config.whisper.api_key.get_secret_value() == "usual"
    assert config.webhook.secret[0].get_secret_value() == SECRET


def test_a_variable_may_stand_for_a_number(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("NAME", "bridge")
    path.write_text('[server]\nport = "${PORT}"\npublic_url = "https://${NAME}.example.com:${PORT}/"\n')
    config = load(path)
    assert config.server.port == 9000
    assert config.server.public_url == "https://bridge.example.com:9000"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n[server]\nprot = 1\n", "line 3: server.prot is not a known key; did you mean server.port?"),
        ("[servr]\nport = 1\n", "line 1: servr is not a known key; did you mean server?"),
        ("port = 1\n", "line 1: port is not a known key; did you mean server.port?"),
        ("[server]\nauth_token = 1\n", "line 2: server.auth_token is not a known key; did you mean twilio.auth_token?"),
        ("[server]\nxyzzy = 1\n", "line 2: server.xyzzy is not a known key"),
        ("[whisper]\nvad = { treshold = 1 }\n", "line 2: whisper.vad.treshold is not a known key; did you mean whisper.vad.threshold?"),
        ("[whisper.vad]\nthreshold = 2\n", "line 2: whisper.vad.threshold must be at most 1"),
        ("[whisper]\nvad.threshold = -1\n", "line 2: whisper.vad.threshold must be at least 0"),
        ("[whisper]\nreplay_speed = 1.0\n", "line 2: whisper.replay_speed must be more than 1"),
        ("[whisper.vad]\nthreshold = nan\n", "line 2: whisper.vad.threshold must be a finite number"),
        ("[server]\ndrain_deadline_s = inf\n", "line 2: server.drain_deadline_s must be a finite number"),
        ('[server]\nport = "8080"\n', "line 2: server.port must be a whole number"),
        ("[server]\nport = true\n", "line 2: server.port must be a whole number"),
        ("[server]\nport = 80.5\n", "line 2: server.port must be a whole number"),
        ("[server]\nport = -1\n", "line 2: server.port must be at least 0"),
        ("[server]\nport = 65536\n", "line 2: server.port must be at most 65535"),
        ("[server]\nhost = 1\n", "line 2: server.host must be a text in quotes"),
        ("[server]\nworkers = -1\n", "line 2: server.workers must be at least 0"),
        ("[server]\nworkers = 65\n", "line 2: server.workers must be at most 64"),
        (
            "[server]\nworkers = 4\nmax_calls = 3\n",
            "line 3: server.max_calls must be 0, or at least 1 for each of server.workers",
        ),
        (
            "[server]\nworkers = 4\n[whisper]\nmax_connections = 7\n",
            "line 4: whisper.max_connections must be 0, or at least 2 for each of server.workers: a call has two tracks",
        ),
        ("server = 1\n", "line 1: server must be a table"),
        ("[twilio]\nverify_signatures = 1\n", "line 2: twilio.verify_signatures must be true or false"),
        ('[twilio]\nmode = "x"\n', "line 2: twilio.mode must be 'start' or 'connect'"),
        ("[server]\nmax_calls = -1\n", "line 2: server.max_calls must be at least 0"),
        ("[twilio]\nmax_speed = 0.5\n", "line 2: twilio.max_speed must be at least 1"),
        ("[twilio]\nauth_token = 1\n", "line 2: twilio.auth_token must be a text in quotes or a list of them"),
        ('[twilio]\nauth_token = ["a", ""]\n', "line 2: twilio.auth_token must have no empty text in its list"),
        ("[webhook]\nsecret = 1\n", "line 2: webhook.secret must be a text in quotes or a list of them"),
        ('[webhook]\nevents = "call.ended"\n', "line 2: webhook.events must be a list: [...]"),
        ('[webhook]\nevents = ["call.ended", "call.ended"]\n', "line 2: webhook.events must not name anything twice"),
        ('[numbers]\nnumber = "x"\n', "line 1: numbers must be written as [[numbers]], one table for each number"),
        ('[[numbers]]\nlanguage = "en"\n', "line 1: numbers[0].number is missing"),
        (
            '[[numbers]]\nnumber = "+15551234567"\n[[numbers]]\nnumber = "+15551234568"\n[numbers.vad]\nthreshold = 3\n',
            "line 6: numbers[1].vad.threshold must be at most 1",
        ),
        (
            '[[numbers]]\nnumber = "+15551234567"\nwebhok_url = ""\n',
            "line 3: numbers[0].webhok_url is not a known key; did you mean numbers[0].webhook_url?",
        ),
        ("a = 1\na = 2\n", "line 2: is not valid TOML: this key or table is there already"),
        ("[server]\n[server]\n", "line 2: is not valid TOML: this key or table is there already"),
        (f"[twilio]\nauth_token = {CANARY}\n", "line 2: is not valid TOML: Invalid value"),
        (f'[twilio]\nauth_token = "{CANARY}\n', "line 2: is not valid TOML: Illegal character '\\n'"),
    ],
)  # fmt: skip
def test_a_wrong_key_or_value_is_named_with_its_line(path: Path, text: str, expected: str) -> None:
    assert refusal(path, text) == f"{path} {expected}"


def test_every_problem_is_told_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_SERVER__PROT", "1")
    monkeypatch.setenv("BRIDGE_SERVER__PORT", CANARY)
    text = '[twilio]\nauth_token = "${NOT_SET}"\napi_base_url = "ftp://x"\n[server]\nport = 1\n'
    assert refusal(path, text).splitlines() == [
        "environment variable BRIDGE_SERVER__PROT: server.prot is not a known key; did you mean BRIDGE_SERVER__PORT?",
        f"{path} line 2: twilio.auth_token needs the environment variable NOT_SET, which is not set",
        "environment variable BRIDGE_SERVER__PORT: server.port must be a whole number",
        f"{path} line 3: twilio.api_base_url must be a URL such as https://example.com/path",
    ]


def test_a_flood_of_problems_is_cut(path: Path) -> None:
    lines = refusal(path, "".join(f"unknown{number} = 1\n" for number in range(500))).splitlines()
    assert len(lines) == 21
    assert lines[-1] == "and 480 more problems"


@pytest.mark.parametrize("name", ["BRIDGE_SERVER__PROT", "BRIDGE_SERVER__PORT__X", "BRIDGE_A__"])
def test_an_unknown_variable_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, CANARY)
    assert refusal(None).startswith(f"environment variable {name}: ")


@pytest.mark.parametrize(
    "name", ["BRIDGE_WEBHOOK__EVENTS", "BRIDGE_NUMBERS", "BRIDGE_WEBHOOK__ALLOW_PRIVATE_NETWORKS"]
)
@pytest.mark.parametrize("value", ["[", '["' + CANARY, "{}", "[1]", "[" * 100_000, CANARY])
def test_a_list_in_the_environment_that_is_none(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert refusal(None).startswith(f"environment variable {name}: ")


@pytest.mark.parametrize(
    "text",
    [
        f'[webhook]\nsecret = "{CANARY}"\n',
        f'[webhook]\nsecret = ["whsec_{CANARY}"]\n',
        f'[webhook]\nurl = "https://{CANARY}@example.com/"\n',
        f'[twilio]\nauth_token = "{CANARY}\\n"\n',
        f'[whisper]\napi_key = ["{CANARY}"]\n',
        f'[server]\nadmin_token = {{ x = "{CANARY}" }}\n',
        f'[outbox]\nurl = "postgresql://bridge:{CANARY}@host/bridge"\n',
        f'[whisper]\nprompt = "{CANARY}"\nlanguage = "{CANARY} "\n',
        f'[twilio]\nauth_token = "{CANARY}"\nverify_signatures = false\n[server]\nhost = "0.0.0.0"\n',
        f'[[numbers]]\nnumber = "{CANARY}"\nwhisper_api_key = "{CANARY}"\n',
    ],
)
def test_no_secret_stands_in_an_error(path: Path, text: str) -> None:
    refusal(path, text)


def test_with_postgresql_the_journals_need_a_directory_of_their_own(path: Path) -> None:
    refused = refusal(path, '[server]\nport = 1\n\n[journal]\n[outbox]\nurl = "postgresql://u@h/d"\n')
    assert refused == (
        f"{path} line 4: journal.path must be set when outbox.url is PostgreSQL: audio waits on a disk of this machine"
    )


def test_a_secret_from_the_environment_does_not_stand_in_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BRIDGE_WEBHOOK_SECRET", CANARY)
    assert refusal(None) == (
        "environment variable BRIDGE_WEBHOOK_SECRET: webhook.secret[0] "
        "must be whsec_ followed by the base64 of 24 random bytes or more: "
        "make one with: echo whsec_$(openssl rand -base64 32)"
    )


def test_what_is_missing_for_serving_is_told_with_its_place(path: Path) -> None:
    path.write_text('[webhook]\nurl = "http://10.0.0.1/x"\n')
    with pytest.raises(TargetRefused) as forbidden:
        Targets().check_url("http://10.0.0.1/x")
    refused = str(forbidden.value)
    with pytest.raises(ConfigError) as caught:
        load(path).require_serving()
    assert str(caught.value).splitlines() == [
        f"{path}: twilio.account_sid is not set (or the environment variable TWILIO_ACCOUNT_SID)",
        f"{path}: twilio.auth_token is not set (or the environment variable TWILIO_AUTH_TOKEN)",
        f"{path}: server.public_url is not set: the https:// address at which Twilio reaches this bridge",
        f"{path} line 1: webhook.secret is not set (or the environment variable BRIDGE_WEBHOOK_SECRET)",
        f"{path} line 2: webhook.url: {refused}",
    ]
