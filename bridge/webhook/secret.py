"""Webhook secrets: Standard Webhooks' `whsec_` and base64 of 24 random bytes or more."""

import base64
import binascii

from bridge.errors import ConfigError

LEAST_BYTES = 24
"""Standard Webhooks 1.0.0: keys have 24 to 64 bytes."""

HOW = "make one with: echo whsec_$(openssl rand -base64 32)"


def check_secret(text: str) -> None:
    """Raise `ConfigError` unless `text` is a secret that signs what receivers verify. Never quotes it."""
    if not text:
        raise ConfigError(f"The webhook secret is empty: {HOW}.")
    if text.startswith(("whsk_", "whpk_")):
        raise ConfigError(f"The webhook secret is an asymmetric key, and whsec_ is needed: {HOW}.")
    if not text.startswith("whsec_"):
        raise ConfigError(f"The webhook secret does not begin with whsec_: {HOW}.")
    encoded = text.removeprefix("whsec_").rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ConfigError(f"The webhook secret is not base64 after whsec_: {HOW}.") from error
    if len(key) < LEAST_BYTES:
        raise ConfigError(f"The webhook secret has {len(key)} bytes, and {LEAST_BYTES} are the least: {HOW}.")
