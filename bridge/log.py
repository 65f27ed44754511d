"""Structured logs: one JSON object a line on stderr, one line per change of state.

Transcript text, telephone numbers and secrets are never logged: call and stream ids, sizes and
durations are.
"""

import logging
import sys

import structlog

Logger = structlog.stdlib.BoundLogger


def configure(level: int = logging.INFO) -> None:
    """Send structlog's lines, and warnings of the libraries, to stderr as JSON."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(message)s", force=True)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Logger:
    """A logger whose lines carry the name of the module that wrote them."""
    logger: Logger = structlog.get_logger(module=name)
    return logger
