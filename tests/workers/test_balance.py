from bridge.workers.balance import SILENT_S, Report, Standing, rank


def first(standings: list[Standing], now: float = 0.0) -> int:
    return min(range(len(standings)), key=lambda number: rank(standings[number], now))


def test_calls_that_come_one_after_the_other_are_spread_evenly() -> None:
    standings = [Standing(0.0) for _ in range(4)]
    streams, turn = [0] * 4, 0
    for call in range(41):
        for is_stream in (False, True):  # Twilio's question, then the stream
            turn += 1
            chosen = first(standings)
            standings[chosen].pass_on(turn)
            streams[chosen] += is_stream
            standings[chosen].report = Report(streams[chosen], standings[chosen].passed, taking=True)
        assert max(streams) - min(streams) <= 1, f"after {call + 1} calls"


def test_what_is_on_its_way_counts_as_a_stream() -> None:
    standings = [Standing(0.0) for _ in range(2)]
    chosen = []
    for turn in range(6):  # all at once: nobody has reported yet
        chosen.append(first(standings))
        standings[chosen[-1]].pass_on(turn + 1)
    assert chosen == [0, 1, 0, 1, 0, 1]


def test_a_stream_that_is_certain_counts_before_a_question_whose_answer_was_not_reported_yet() -> None:
    streaming = Standing(0.0, Report(1, 1, taking=True), passed=1, turn=1)
    answering = Standing(0.0, passed=1, turn=2)
    waiting = Standing(0.0, Report(1, 1, taking=True, unsure=1), passed=1, turn=3)
    assert sorted([streaming, waiting, answering], key=lambda each: rank(each, 0.0)) == [
        answering,
        waiting,
        streaming,
    ]


def test_a_worker_that_was_replaced_gets_calls_until_it_has_as_many() -> None:
    standings = [Standing(0.0, Report(5, 5, taking=True), passed=5), Standing(0.0)]
    for turn in range(5):
        assert first(standings) == 1
        standings[1].pass_on(turn + 1)
    standings[1].report = Report(5, 5, taking=True)
    assert first(standings) == 0


def test_one_that_is_about_to_end_or_stands_still_gets_none_while_another_is_there() -> None:
    busy = Standing(10.0, Report(100, 0, taking=True))
    ending = Standing(10.0, Report(0, 0, taking=False))
    still = Standing(10.0 - SILENT_S)
    assert sorted([ending, still, busy], key=lambda each: rank(each, 10.0)) == [busy, still, ending]


def test_one_that_is_full_comes_behind_one_with_a_place_and_one_that_keeps_places_before_one_that_does_not() -> (
    None
):
    full, keeps, free = (Standing(0.0, Report(load, 0, taking=True, fullness=2 - load)) for load in range(3))
    ending = Standing(0.0, Report(0, 0, taking=False))
    assert sorted([ending, full, keeps, free], key=lambda each: rank(each, 0.0)) == [
        free,
        keeps,
        full,
        ending,
    ]


def test_a_report_that_is_older_than_a_connection_does_not_count_it_away() -> None:
    standing = Standing(0.0, passed=3)
    standing.report = Report(1, 2, taking=True)
    assert standing.load == 2
    standing.report = Report(1, 3, taking=True)
    assert standing.load == 1
