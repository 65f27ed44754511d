from pydantic import SecretStr

from bridge.config import WhisperConfig
from bridge.whisper.endpoint import DIALECT_PROBES, IN_ORDER, Endpoint, Endpoints
from bridge.whisper.protocol import Dialect


def test_auto_starts_with_the_current_dialect_and_learns_from_a_rejection() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "auto")
    assert endpoint.dialect == "v1"
    assert endpoint.rejected(Dialect.V1)
    assert endpoint.dialect == "seed"


def test_sessions_that_were_refused_together_count_once() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "auto")
    assert endpoint.rejected(Dialect.V1)
    assert endpoint.rejected(Dialect.V1)
    assert endpoint.dialect is Dialect.SEED


def test_both_refused_means_trying_in_turn() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "auto")
    endpoint.rejected(Dialect.V1)
    endpoint.rejected(Dialect.SEED)
    assert endpoint.dialect is Dialect.V1


def test_a_confirmed_dialect_is_given_up_only_once_the_other_was_accepted() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "auto")
    endpoint.accepted(Dialect.V1)
    for _ in range(DIALECT_PROBES - 1):
        assert not endpoint.rejected(Dialect.V1)
    assert endpoint.rejected(Dialect.V1)  # the session that was refused may try another one
    assert endpoint.dialect == "v1"
    assert endpoint.rejected(Dialect.SEED)  # which is refused as well: it was something else
    assert endpoint.dialect == "v1"
    endpoint.accepted(Dialect.SEED)
    assert endpoint.dialect == "seed"


def test_a_dialect_that_is_accepted_from_others_is_kept() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "auto")
    endpoint.accepted(Dialect.V1)
    for _ in range(DIALECT_PROBES):
        endpoint.rejected(Dialect.V1)
    endpoint.accepted(Dialect.V1)
    endpoint.accepted(Dialect.SEED)
    assert endpoint.dialect == "v1"


def test_a_dialect_that_was_configured_is_never_changed() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "seed")
    assert not endpoint.rejected(Dialect.SEED)
    assert endpoint.dialect is Dialect.SEED


def test_calls_share_what_one_of_them_learned() -> None:
    endpoints = Endpoints()
    config = WhisperConfig(url="ws://x/websocket", fallback_url="ws://y/websocket", api_key=SecretStr("k"))
    first, fallback = endpoints.of(config)
    assert (first.url, fallback.url, first.api_key) == ("ws://x/websocket", "ws://y/websocket", "k")
    assert endpoints.of(config)[0] is first
    assert endpoints.of(config.model_copy(update={"dialect": "seed"}))[0] is not first


def test_one_turnstile_for_the_whole_process() -> None:
    endpoints = Endpoints()
    (first,) = endpoints.of(WhisperConfig(url="ws://x/websocket"))
    (second,) = endpoints.of(WhisperConfig(url="ws://y/websocket"))
    assert first.turnstile is second.turnstile
    assert first.breaker is not second.breaker


def test_a_server_keeps_order_until_it_does_not() -> None:
    endpoint = Endpoint("ws://x/websocket", "", "v1")
    for _ in range(IN_ORDER):
        assert not endpoint.keeps_order
        endpoint.waited_in_vain()
    assert endpoint.keeps_order
    endpoint.reordered()
    assert not endpoint.keeps_order


def test_what_logs_call_it_holds_no_secret() -> None:
    assert Endpoint("wss://me:pw@x.example:9/websocket?key=s", "", "v1").host == "x.example"
    assert Endpoint("wss://[broken", "", "v1").host == ""
