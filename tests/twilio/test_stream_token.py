from typing import Any

import pytest

from bridge.twilio.stream_token import AGAIN_S, LIFE_S, LONGEST_S, PARAMETER, StreamTokens, TokenRefused

CALL, ACCOUNT = "CA" + "3" * 32, "AC" + "2" * 32


def issue(tokens: StreamTokens, now: float = 1000.0, **changes: str) -> str:
    who: dict[str, Any] = {
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
    tokens = StreamTokens(["secret"])
    ticket = tokens.read(issue(tokens), call_sid=CALL, account_sid=ACCOUNT, now=1001.0)
    assert (ticket.from_, ticket.to, ticket.direction) == ("+15550100", "+15550199", "inbound")


def test_every_token_has_a_nonce_of_its_own() -> None:
    tokens = StreamTokens(["secret"])
    assert issue(tokens) != issue(tokens)


def test_another_process_with_the_same_secret_admits_it() -> None:
    assert redeem(StreamTokens(["secret"]), issue(StreamTokens(["secret"]))) == "admitted"


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
    assert redeem(StreamTokens(["secret"]), token) == why


def test_a_token_of_another_key_or_changed_is_forged() -> None:
    tokens = StreamTokens(["secret"])
    assert redeem(tokens, issue(StreamTokens(["other"]))) == "forged"
    token = issue(tokens)
    assert redeem(tokens, token[:10] + ("A" if token[10] != "A" else "B") + token[11:]) == "forged"


def test_a_token_serves_its_own_call_and_account_for_a_minute() -> None:
    tokens = StreamTokens(["secret"])
    token = issue(tokens)
    assert redeem(tokens, token, call="CA" + "4" * 32) == "other_call"
    assert redeem(tokens, token, account="AC" + "4" * 32) == "other_call"
    assert redeem(tokens, token, now=1000.0 + LIFE_S) == "expired"
    assert redeem(tokens, token, now=999.0 + LIFE_S) == "admitted"


def test_while_a_secret_is_rotated_tokens_of_both_serve_and_new_ones_are_of_the_first() -> None:
    old, new = StreamTokens(["old"]), StreamTokens(["new"])
    both = StreamTokens(["new", "old"])
    assert redeem(both, issue(old)) == redeem(both, issue(new)) == "admitted"
    assert redeem(new, issue(both)) == "admitted"
    assert redeem(old, issue(both)) == "forged"


@pytest.mark.parametrize(
    ("version", "why"),
    [("v1", "admitted"), ("v0", "forged"), ("v2", "forged"), ("V1", "forged"), ("", "forged")],
)
def test_only_this_version_is_known(version: str, why: str) -> None:
    token = issue(StreamTokens(["secret"])).removeprefix("v1")
    assert redeem(StreamTokens(["secret"]), version + token) == why


def test_a_token_that_lives_longer_than_any_of_ours_is_refused() -> None:
    tokens = StreamTokens(["secret"])
    token = issue(tokens, now=2000.0)
    assert redeem(tokens, token, now=2000.0 + LIFE_S - LONGEST_S - 1) == "future"
    assert redeem(tokens, token, now=2000.0 + LIFE_S - LONGEST_S) == "admitted"


def test_a_token_for_a_stream_that_comes_again_lives_longer_and_says_so() -> None:
    tokens = StreamTokens(["secret"])
    token = tokens.issue(
        call_sid=CALL, account_sid=ACCOUNT, from_="", to="", direction="", now=0.0, again=True
    )
    assert tokens.read(token, call_sid=CALL, account_sid=ACCOUNT, now=AGAIN_S - 1).again
    assert redeem(tokens, token, now=AGAIN_S) == "expired"
    assert AGAIN_S < LONGEST_S


@pytest.mark.parametrize("character", ["x", "é", "😀", '"', "\0"])
def test_name_and_value_fit_a_parameter_of_twilios(character: str) -> None:
    """Beyond it Twilio refuses the TwiML, and the call with it."""
    party = "sip:" + character * 1000
    token = issue(StreamTokens(["secret"]), from_=party, to=party, direction="outbound-api")
    assert len(PARAMETER) + len(token) < 500
