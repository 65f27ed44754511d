from pathlib import Path

from bridge.config import Config
from bridge.outbox.postgresql.postgres import Postgres
from bridge.outbox.sqlite import Sqlite
from bridge.outbox.store import outbox_of


def test_the_url_says_which_store_it_is(tmp_path: Path) -> None:
    assert isinstance(outbox_of(Config.model_validate({"outbox": {"url": f"sqlite://{tmp_path}"}})), Sqlite)
    shared = {"outbox": {"url": "postgresql://u:hunter2@h/d"}, "journal": {"path": str(tmp_path)}}
    assert isinstance(outbox_of(Config.model_validate(shared)), Postgres)
