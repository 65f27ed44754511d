import ssl
from pathlib import Path

import pytest

from bridge.outbox.postgresql.address import Address

CERTIFICATE = Path(__file__).parents[2] / "whisper" / "self-signed.pem"


@pytest.mark.parametrize(
    ("url", "hosts", "dsn"),
    [
        ("postgresql://u:p%40w@db/x", [("db", 5432)], "postgresql://u:p%40w@/x"),
        ("postgres://db:6000", [("db", 6000)], "postgresql:///"),
        ("postgresql://u@a,b:6000/x", [("a", 5432), ("b", 6000)], "postgresql://u@/x"),
        ("postgresql://u:p@[::1]:99,[fd00::1]/x", [("::1", 99), ("fd00::1", 5432)], "postgresql://u:p@/x"),
        ("postgresql:///x?host=/run/postgresql", [("/run/postgresql", 5432)], "postgresql:///x"),
        ("postgresql://u@%2Frun%2Fpg/x", [("/run/pg", 5432)], "postgresql://u@/x"),
        ("postgresql:///x?host=a,b&port=1,2", [("a", 1), ("b", 2)], "postgresql:///x"),
        ("postgresql:///x?host=a,b&port=7", [("a", 7), ("b", 7)], "postgresql:///x"),
        ("postgresql://a/x?application_name=y", [("a", 5432)], "postgresql:///x?application_name=y"),
    ],
)
def test_what_a_url_says(url: str, hosts: list[tuple[str, int]], dsn: str) -> None:
    address = Address.parse(url)
    assert list(address.hosts) == hosts
    assert address.options()["dsn"] == dsn


@pytest.mark.parametrize(
    "url",
    ["", "mysql://h/d", "postgresql:", "postgresql:///d", "postgresql://hunter2:p@/d", "postgresql://h:x/d", "postgresql://h:0/d",
     "postgresql://h:70000/d", "postgresql://u:hunter2/w@h/d", "postgresql://h,/d", "postgresql://[::1/d", "postgresql://[x]/d",
     "postgresql:///d?host=a,b&port=1,2,3", "postgresql://h/d#f", "postgresql://h/d?x", "postgresql://h/d?statement_cache_size=no"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError, match="must have the form postgresql://user") as caught:
        Address.parse(url)
    assert "hunter2" not in str(caught.value)


def test_it_is_shown_without_its_password() -> None:
    address = Address.parse("postgresql://bridge:hunter2@db1,[::1]:6000/x")
    assert str(address) == "db1:5432, [::1]:6000"
    assert "hunter2" not in repr(address)
    assert "bridge" not in repr(address)


@pytest.mark.parametrize(
    ("host", "verified"),
    [
        ("127.0.0.1", False),
        ("[::1]", False),
        ("localhost", False),
        ("%2Frun%2Fpostgresql", False),
        ("10.0.0.1", True),
        ("db.example.com", True),
        ("localhost.example.com", True),
        ("127.0.0.1,db.example.com", True),
    ],
)
def test_who_is_elsewhere_has_to_prove_who_it_is(host: str, verified: bool) -> None:
    context = Address.parse(f"postgresql://u:p@{host}/d").options().get("ssl")
    assert (context is not None) == verified
    if context is not None:
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    assert "ssl" not in Address.parse(f"postgresql://u:p@{host}/d?sslmode=require").options()


def test_an_authority_and_an_identity_of_ones_own() -> None:
    url = f"postgresql://db/d?sslrootcert={CERTIFICATE}&sslcert={CERTIFICATE}&sslkey={CERTIFICATE}"
    options = Address.parse(url).options()
    assert len(options["ssl"].get_ca_certs()) == 1
    assert options["dsn"] == "postgresql:///d"
    named = Address.parse(f"postgresql://db/d?sslmode=verify-ca&sslrootcert={CERTIFICATE}")
    assert "sslrootcert" in named.options()["dsn"], "the driver sees to it then"
    with pytest.raises(FileNotFoundError):
        Address.parse("postgresql://db/d?sslrootcert=/nowhere").options()


def test_behind_a_pooler_nothing_outlives_a_transaction() -> None:
    lasting = Address.parse("postgresql://localhost/d").options()
    assert lasting["server_settings"]["statement_timeout"] == "3000"
    assert "statement_cache_size" not in lasting
    pooled = Address.parse("postgresql://localhost/d?statement_cache_size=0").options()
    assert pooled["statement_cache_size"] == 0
    assert "server_settings" not in pooled
    assert pooled["dsn"] == "postgresql:///d"
