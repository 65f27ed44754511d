"""An outbox that is asked through a host of it, as workers do."""

from typing import Any, cast

from bridge.outbox.host import Host
from bridge.outbox.outbox import Outbox
from bridge.outbox.remote import remote_outbox


def hosted(store: Outbox) -> Outbox:
    """`store` through a host and a socket of its own; `open` and `close` open and close all of them."""
    return cast("Outbox", _Hosted(store))  # what it does not do itself, a remote outbox does


class _Hosted:
    def __init__(self, store: Outbox) -> None:
        self._store = store
        self._host = Host(store)
        self._remote: Outbox

    def __getattr__(self, name: str) -> Any:
        return getattr(self._remote, name)

    async def open(self) -> None:
        await self._store.open()
        self._remote = remote_outbox(await self._host.connect())
        await self._remote.open()

    async def close(self) -> None:
        await self._remote.close()
        await self._host.__aexit__(None, None, None)
        await self._store.close()
