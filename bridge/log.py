"""Structured logs: one JSON object a line on stderr, one line per change of state.

Transcript text, telephone numbers and secrets are never logged: call and stream ids, sizes and
durations are.
"""

import logging
import sys

import structlog

Logger = structlog.stdlib.BoundLogger

_FIELDS: list[structlog.typing.Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


def configure(level: int = logging.INFO, **fields: object) -> None:
    """Send structlog's lines, and warnings of the libraries, to stderr as JSON. `fields` are in every line."""

    def bear(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {**line, **fields}

    processors = [*_FIELDS, bear] if fields else _FIELDS
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    structlog.configure(
        processors=[*processors, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        # Line and newline in one write: several workers may have the same stderr.
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )


def get(name: str) -> Logger:
    """A logger whose lines carry the name of the module that wrote them."""
    logger: Logger = structlog.get_logger(module=name)
    return logger
