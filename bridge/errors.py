"""The errors a person may see: one sentence that says what is wrong, where, and what to do."""

from typing import ClassVar


class BridgeError(Exception):
    """What was asked for failed. Shown as one sentence on stderr, without a traceback."""

    exit_code: ClassVar[int] = 1


class UsageError(BridgeError):
    """The command line or its input cannot be used as given."""

    exit_code: ClassVar[int] = 2


class ConfigError(UsageError):
    """The configuration cannot be used as given."""
