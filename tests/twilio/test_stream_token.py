import pytest

from bridge.twilio.stream_token import LIFE_S, PARAMETER, StreamTokens, TokenRefused

CALL, ACCOUNT = "CA" + "3" * 32, "AC" + "2" * 32


def issue(tokens: StreamTokens, now: float = 1000.0, **changes: str) -> str:
    who = {
        "call_sid": CALL,
        "account_sid": ACCOUNT,
        "from_": "+15550100",
        "to": "+15550199",
        "direction": "inbound",
    }
    return tokens.issue(**{**who, **changes}, now=now)


def redeem(
    tokens: StreamTokens, token: str, now: float = 1001.0, call: str = CALL, account: str = ACCOUNT
) -> str:
    try:
        tokens.read(token, call_sid=call, account_sid=account, now=now)
    except TokenRefused as refused:
        return str(refused)
    return "admitted"


def test_a_token_says_whose_call_it_is() -> None:
    tokens = StreamTokens("secret")
    ticket = tokens.read(issue(tokens), call_sid=CALL, account_sid=ACCOUNT, now=1001.0)
    assert (ticket.from_, ticket.to, ticket.direction) == ("+15550100", "+15550199", "inbound")


def test_every_token_has_a_nonce_of_its_own() -> None:
    tokens = StreamTokens("secret")
    assert issue(tokens) != issue(tokens)


def test_another_process_with_the_same_secret_admits_it() -> None:
    assert redeem(StreamTokens("secret"), issue(StreamTokens("secret"))) == "admitted"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("", "missing"),
        ("x", "forged"),
        ("v1", "forged"),
        ("v1..", "forged"),
        ("v2.a.b", "forged"),
        ("v1.é.ü", "forged"),
        ("v1.\ud800.x", "forged"),
        ("v1." + "A" * 100_000, "forged"),
    ],
)
def test_what_is_not_a_token(token: str, why: str) -> None:
    assert redeem(StreamTokens("secret"), token) == why


def test_a_token_of_another_key_or_changed_is_forged() -> None:
    tokens = StreamTokens("secret")
    assert redeem(tokens, issue(StreamTokens("other"))) == "forged"
    token = issue(tokens)
    assert redeem(tokens, token[:10] + ("A" if token[10] != "A" else "B") + token[11:]) == "forged"


def test_a_token_serves_its_own_call_and_account_for_a_minute() -> None:
    tokens = StreamTokens("secret")
    token = issue(tokens)
    assert redeem(tokens, token, call="CA" + "4" * 32) == "other_call"
    assert redeem(tokens, token, account="AC" + "4" * 32) == "other_call"
    assert redeem(tokens, token, now=1000.0 + LIFE_S) == "expired"
    assert redeem(tokens, token, now=999.0 + LIFE_S) == "admitted"


def test_name_and_value_fit_a_parameter_of_twilios() -> None:
    token = issue(
        StreamTokens("secret"), from_="sip:" + "x" * 1000, to="sip:" + "y" * 1000, direction="outbound-api"
    )
    assert len(PARAMETER) + len(token) < 500
