"""What a worker is told before it begins: its number, and its share of what the machine may do."""

import pickle
from typing import Final

import msgspec

from bridge.config import Config

EACH: Final = 2
"""Sockets at one Whisper endpoint that are given to one worker together: those of a call with both tracks."""


class Setup(msgspec.Struct, frozen=True):
    """What a worker is told."""

    number: int
    """1, 2, 3 ..."""
    node: str
    """What the outbox is to call this life of it."""
    port: int
    """Where its supervisor listens."""
    config: bytes

    @classmethod
    def of(cls, config: Config, number: int, *, node: str, port: int) -> "Setup":
        """For the worker of that number."""
        return cls(number, node, port, pickle.dumps(share(config, number)))

    def read(self) -> Config:
        """The worker's configuration."""
        config = pickle.loads(self.config)  # noqa: S301 - from the process that started this one, through a nameless socket
        if not isinstance(config, Config):
            raise TypeError("a worker was set up with something else than a configuration")
        return config


def share(config: Config, number: int) -> Config:
    """The configuration of one worker: what bounds the machine is divided among all. 0 stays 0: no bound, or measured."""
    workers = config.server.processes
    max_calls = _part(config.server.max_calls, number, workers)
    whole, odd = divmod(config.whisper.max_connections, EACH)
    max_connections = EACH * _part(whole, number, workers) + odd * (number == workers)
    return config.model_copy(
        update={
            "server": config.server.model_copy(update={"max_calls": max_calls}),
            "whisper": config.whisper.model_copy(update={"max_connections": max_connections}),
        }
    )


def _part(whole: int, number: int, workers: int) -> int:
    """Of `whole` things for one of `workers`: the first get what is left over."""
    return whole // workers + (number <= whole % workers)
