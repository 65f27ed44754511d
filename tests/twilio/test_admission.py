import pytest

from bridge.config import Config
from bridge.twilio.admission import RESERVED_S, Admission, Place
from bridge.twilio.load import MOST, PRIOR

ONE, OTHER = "wss://one.example.com/", "wss://other.example.com/"


class Calls(dict[str, Place]):
    """Those that are live."""

    def sockets(self, endpoint: str) -> int:
        return sum(place.tracks for place in self.values() if place.endpoint == endpoint)


class House:
    """An admission, and the calls that it sees."""

    def __init__(self, *, max_calls: int = 0, max_connections: int = 0) -> None:
        self.live = Calls()
        self.admission = Admission(self.live, max_calls=max_calls, max_connections=max_connections)

    def ask(self, name: str, now: float = 0.0, *, endpoint: str = ONE, again: bool = False) -> str:
        return self.admission.reserve(Place(name, endpoint, 2), now, again=again)

    def full(self, now: float = 0.0, strangers: int = 0) -> str:
        return self.admission.full(Place("", ONE, 2), now, strangers=strangers)

    def begin(self, name: str, endpoint: str = ONE) -> None:
        self.live[name] = Place(name, endpoint, 2)
        self.admission.begin(name)


def test_a_burst_gets_as_many_places_as_there_are() -> None:
    house = House(max_calls=10)
    answers = [house.ask(f"CA{number}") for number in range(1000)]
    assert answers == [""] * 10 + ["full_calls"] * 990


def test_a_burst_at_a_process_that_has_measured_nothing_yet() -> None:
    house = House()
    answers = [house.ask(f"CA{number}") for number in range(1000)]
    assert answers.count("") == int(MOST / PRIOR)


def test_a_place_that_nobody_comes_for_is_free_again() -> None:
    house = House(max_calls=2)
    house.ask("CA1", 0.0)
    house.ask("CA2", 1.0)
    assert house.ask("CA3", RESERVED_S - 0.1) == "full_calls"
    assert house.ask("CA3", RESERVED_S) == ""
    assert house.ask("CA4", RESERVED_S) == "full_calls"
    assert house.ask("CA4", RESERVED_S + 1.0) == ""
    assert house.ask("CA5", RESERVED_S + 1.0) == "full_calls"


def test_a_call_that_begins_counts_once_and_its_end_frees_its_place() -> None:
    house = House(max_calls=1)
    house.ask("CA1")
    house.begin("CA1")
    assert house.ask("CA2", 1.0) == "full_calls"
    house.live.clear()
    assert house.ask("CA2", 1.0) == ""


def test_twilio_asks_twice_and_the_call_counts_once() -> None:
    house = House(max_calls=1)
    assert house.ask("CA1", 0.0) == house.ask("CA1", 5.0) == ""
    assert house.full(RESERVED_S + 1.0) == "full_calls", "kept since the second time"
    assert house.full(RESERVED_S + 5.0) == ""


def test_a_call_that_was_let_in_once_is_counted_and_never_refused() -> None:
    house = House(max_calls=1)
    house.begin("CA1")
    assert house.ask("CA2", again=True) == ""
    assert house.ask("CA1") == "", "it is live, whoever asks"
    house.live.clear()
    assert house.ask("CA3") == "full_calls"


def test_a_process_that_is_busy_takes_no_more() -> None:
    house = House()
    for second in range(6):
        house.admission.sample(float(second), second * 0.9)
    assert house.ask("CA1", 6.0) == house.full(6.0) == "full_cpu"
    assert house.ask("CA1", 6.0, again=True) == ""
    told = House(max_calls=10)
    for second in range(6):
        told.admission.sample(float(second), second * 0.9)
    assert told.ask("CA1", 6.0) == "", "who says how many calls there may be is believed"


def test_each_whisper_endpoint_has_its_own_number_of_sockets() -> None:
    house = House(max_connections=5)
    assert [house.ask(f"CA{number}") for number in range(3)] == ["", "", "full_whisper"]
    assert house.ask("CA9", endpoint=OTHER) == ""
    house.begin("CA0")
    assert house.ask("CA2") == "full_whisper"
    house.live.clear()
    assert house.ask("CA2") == ""


def test_one_that_is_full_says_whether_it_keeps_places() -> None:
    house = House(max_calls=2)
    place = Place("", ONE, 2)
    assert house.ask("CA1") == ""
    house.begin("CA1")
    assert house.admission.fullness(place, 0.0) == 0
    assert house.ask("CA2") == ""
    assert house.admission.fullness(place, 0.0) == 1
    house.begin("CA2")
    assert house.admission.fullness(place, 0.0) == 2


def test_sockets_that_nobody_here_expects_may_take_a_place_each() -> None:
    house = House(max_calls=3)
    house.ask("CA1")
    assert house.full(strangers=1) == ""
    assert house.full(strangers=2) == "full_calls"
    assert house.full() == ""


@pytest.mark.parametrize(
    ("twilio", "tracks"),
    [({}, 2), ({"tracks": "inbound"}, 1), ({"mode": "connect"}, 1), ({"mode": "connect", "tracks": "inbound"}, 1)],
)  # fmt: skip
def test_what_a_call_takes_up(twilio: dict[str, str], tracks: int) -> None:
    settings = Config.model_validate({"twilio": twilio, "whisper": {"url": ONE}}).for_number("+1")
    assert Place.of("CA1", settings) == Place("CA1", ONE, tracks)


def test_a_call_that_has_its_stream_at_another_worker_gives_its_place_back() -> None:
    house, told = House(max_calls=1), list[str]()
    house.admission.elsewhere = told.append
    house.ask("CA1")
    assert house.ask("CA2") == "full_calls"
    house.admission.release("CA1")
    house.admission.release("CA1")
    assert house.ask("CA2") == ""
    house.begin("CA2")
    assert told == []
    house.begin("CA3")
    assert told == ["CA3"], "its place is somewhere else"
