"""The command line. Each command is one file here; this one holds what they share."""

from bridge.cli.app import main

__all__ = ["main"]
