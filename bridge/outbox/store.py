"""Which store the configuration asks for."""

from bridge.config import Config
from bridge.outbox.outbox import Outbox
from bridge.outbox.postgresql.postgres import Postgres
from bridge.outbox.sqlite import Sqlite


def outbox_of(config: Config) -> Outbox:
    """The outbox that `outbox.url` names, not open yet. Raises `ConfigError` for a URL of no use."""
    if config.outbox.shared:
        return Postgres(config.outbox.url.get_secret_value(), accept_loss=config.outbox.accept_loss)
    return Sqlite(config.outbox.directory)
