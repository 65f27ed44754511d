"""whisper-bridge: live telephone calls in, signed transcript webhooks out."""

__version__ = "0.1.0"
