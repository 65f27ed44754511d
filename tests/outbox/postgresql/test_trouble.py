import errno
import ssl

import asyncpg
import pytest

from bridge.errors import ConfigError
from bridge.outbox.outbox import OutboxDown, OutboxFull
from bridge.outbox.postgresql.trouble import in_words


def server(state: str) -> asyncpg.PostgresError:
    return asyncpg.PostgresError.new({"C": state, "M": "the words of the server, with hunter2"})


def test_a_full_disk() -> None:
    assert isinstance(in_words(server("53100"), "db:5432"), OutboxFull)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (server("57P01"), "the server is stopping"),
        (server("57P03"), "starting or stopping"),
        (server("57014"), "took too long"),
        (server("40P01"), "conflicted with another process"),
        (server("40001"), "conflicted with another process"),
        (server("53300"), "no connection to spare"),
        (server("25006"), "takes no writes now"),
        (server("08006"), "the connection broke"),
        (server("58030"), "cannot read or write its files"),
        (server("42P01"), "UndefinedTableError, SQLSTATE 42P01"),
        (server("28P01"), "refuses the user or the password"),
        (TimeoutError(), "no answer in time"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "nothing listens there"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (ConnectionResetError(), "the connection broke"),
        (asyncpg.InterfaceError("connection is closed"), "InterfaceError"),
    ],
)
def test_what_passes_by_itself(error: Exception, reason: str) -> None:
    told = in_words(error, "db:5432")
    assert type(told) is OutboxDown
    assert reason in str(told)
    assert "db:5432" in str(told)
    assert "hunter2" not in str(told)
    assert str(told).endswith(".")
    assert "\n" not in str(told)


@pytest.mark.parametrize("state", ["28P01", "28000", "3D000", "42501"])
def test_what_has_to_be_mended_is_an_error_of_the_configuration_when_it_opens(state: str) -> None:
    told = in_words(server(state), "db:5432", opening=True)
    assert isinstance(told, ConfigError)
    assert "hunter2" not in str(told)
    assert isinstance(in_words(server(state), "db:5432"), OutboxDown)


def test_a_certificate_that_is_not_trusted() -> None:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "self-signed certificate"
    told = in_words(error, "db:5432", opening=True)
    assert isinstance(told, ConfigError)
    assert "(self-signed certificate)" in str(told)


def test_a_parameter_of_no_use() -> None:
    error = asyncpg.exceptions.ClientConfigurationError("`sslmode` parameter must be one of ...")
    assert isinstance(in_words(error, "db:5432", opening=True), ConfigError)
