"""A port for a server that goes away and comes back to the same one."""

import random
import socket
from typing import Final

PORTS: Final = range(20_000, 32_000)
"""Below those that the kernel gives to clients, which may even connect to themselves while the server is away."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
