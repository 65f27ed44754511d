"""Where PostgreSQL is: what a URL says about it, and whom to trust there."""

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

SCHEMES = ("postgresql", "postgres")
PORT = 5432

SESSION: Mapping[str, str] = {
    "application_name": "whisper-bridge",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "5000",
    "jit": "off",  # compiling costs more than these statements take
    "statement_timeout": "3000",
    "tcp_keepalives_idle": "5",
}
"""Settings of each session; the timeouts (ms, s for keepalives) end what a lost client left behind."""


@dataclass(frozen=True, slots=True)
class Address:
    """One database, on one or several hosts of which one can be written."""

    hosts: tuple[tuple[str, int], ...]
    """Names, IP addresses or directories of a unix socket, with ports."""
    dsn: str = field(repr=False)
    """The URL for the driver, without hosts: each is tried by itself."""
    verify: bool
    """Have the server prove that it is that host. False: as `dsn` says."""
    authority: str | None
    """File of the certificates that are trusted then; None: the system's."""
    identity: tuple[str, str | None] | None
    """Files of the certificate and key that are shown then."""
    prepared: bool
    """Whether sessions last: not behind a pooler that gives each transaction another one."""

    @classmethod
    def parse(cls, url: str) -> "Address":
        """Read `postgresql://user:password@host,host:port/database?parameters`. Raises `ValueError`: "must be ..."."""
        try:
            parts = urlsplit(url)
            parameters = dict(
                parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
            )
            login, _, named = parts.netloc.rpartition("@")
            hosts = _hosts(named or parameters.pop("host", ""), parameters.pop("port", ""))
            cache = parameters.pop("statement_cache_size", "100")
            if parts.scheme not in SCHEMES or not hosts or parts.fragment or not cache.isdecimal():
                raise ValueError  # noqa: TRY301 - one sentence for all that is wrong with it
        except ValueError:
            raise ValueError(
                "must have the form postgresql://user:password@host:5432/database, with special characters percent-encoded"
            ) from None
        # Who is not on this machine has to prove who it is, unless the URL says otherwise.
        verify = "sslmode" not in parameters and not all(_is_here(host) for host, _ in hosts)
        authority = parameters.pop("sslrootcert", None) if verify else None
        certificate = parameters.pop("sslcert", None) if verify else None
        identity = (certificate, parameters.pop("sslkey", None)) if certificate else None
        at = "@" if login else ""
        dsn = f"postgresql://{login}{at}{parts.path or '/'}?{urlencode(parameters)}".removesuffix("?")
        return cls(hosts, dsn, verify, authority, identity, prepared=cache != "0")

    def __str__(self) -> str:
        """For people: no user, no password."""
        return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)

    def options(self) -> dict[str, Any]:
        """What the driver is told about every connection, besides host and port. Reads the files of TLS: `OSError`."""
        options: dict[str, Any] = {"dsn": self.dsn, "target_session_attrs": "read-write"}
        if self.verify:
            options["ssl"] = ssl.create_default_context(cafile=self.authority)
            if self.identity:
                options["ssl"].load_cert_chain(*self.identity)
        if self.prepared:
            options["server_settings"] = dict(SESSION)
        else:
            options["statement_cache_size"] = 0
        return options


def _hosts(names: str, ports: str) -> tuple[tuple[str, int], ...]:
    """`a:1,b` or, as in a query, `a,b` and `1,2`; a single port is everybody's."""
    every = [int(port) for port in ports.split(",")] if ports else [PORT]
    listed = names.split(",") if names else []
    if len(every) == 1:
        every *= len(listed)
    return tuple(_host(name, port) for name, port in zip(listed, every, strict=True))


def _host(text: str, port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, own = text[1:].partition("]")
        ipaddress.IPv6Address(host)
        own = own.removeprefix(":")
    else:
        host, _, own = text.partition(":")
    if own:
        port = int(own)
    if not host or not 0 < port < 65536:
        raise ValueError
    return unquote(host), port


def _is_here(host: str) -> bool:
    """Whether `host` can only be on this machine: loopback, or the directory of a socket."""
    if host.startswith("/") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
