"""Which webhook secrets are good enough, and that none is ever quoted."""

import base64

import pytest
from standardwebhooks.webhooks import Webhook

from bridge.errors import ConfigError
from bridge.webhook.secret import check_secret


@pytest.mark.parametrize("length", [24, 25, 26, 32, 64])
@pytest.mark.parametrize("padded", [True, False])
def test_good_secrets_are_those_that_the_library_signs_with(length: int, padded: bool) -> None:
    secret = "whsec_" + base64.b64encode(bytes(range(length))).decode()
    if not padded:
        secret = secret.rstrip("=")
    check_secret(secret)
    assert Webhook(secret)._whsecret == bytes(range(length))


@pytest.mark.parametrize(
    ("secret", "what"),
    [
        ("", "is empty"),
        ("hunter2", "does not begin with whsec_"),
        ("WHSEC_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "does not begin"),
        (" whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "does not begin"),
        ("whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "asymmetric"),
        ("whsec_", "0 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 23).decode(), "23 bytes"),
        ("whsec_not base64 at all, and long enough for it", "not base64"),
        ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdH-_=", "not base64"),
        ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", "not base64"),
        ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHhÄÄ", "not base64"),
        ("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8AA", "not base64"),
    ],
)
def test_bad_secrets_are_refused_in_a_sentence_that_does_not_quote_them(secret: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what) as refused:
        check_secret(secret)
    sentence = str(refused.value)
    assert sentence.endswith("make one with: echo whsec_$(openssl rand -base64 32).")
    tail = secret.strip().removeprefix("whsec_").strip()
    assert not tail or tail not in sentence
