"""The tail misses nothing and repeats nothing, however late and out of order events become readable."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from log_service import START, Clock, Line, LogService
from pipeline_cli.pipeline import log_events
from pipeline_cli.pipeline.log_events import Group, LogEvent, OfImage, Tally, about, follow, history, log_event

GROUPS = (Group("processor", "/aws/lambda/p"), Group("writer", "/aws/lambda/w"))
MAX_LAG = log_events.RETAIN - log_events.SWEEP_EVERY - 30  # less what the looks of this test take


@st.composite
def lines(draw: st.DrawFn) -> list[Line]:
    count = draw(st.integers(1, 40))
    named = draw(st.booleans())
    made = []
    for number in range(count):
        at = draw(st.integers(0, 600_000)) / 1000
        lag = draw(st.one_of(st.floats(0, 2), st.floats(0, 40), st.floats(0, MAX_LAG)))
        made.append(
            Line(
                at=at,
                readable=at + lag,
                message=draw(st.sampled_from(("a", "b"))),
                group=draw(st.sampled_from(GROUPS)).log_group,
                stream=draw(st.sampled_from(("1", "2", "3"))),
                event_id=f"id{number}" if named else None,
            )
        )
    return made


def said(events: list[LogEvent]) -> Counter[tuple[str, float, str, str]]:
    return Counter(
        (event.function, round(event.time.timestamp() - START, 3), event.stream, event.message) for event in events
    )


def expected(made: list[Line]) -> Counter[tuple[str, float, str, str]]:
    names = {group.log_group: group.function for group in GROUPS}
    return Counter((names[line.group], round(line.at, 3), line.stream, line.message) for line in made)


@given(lines(), st.booleans())
def test_a_tail_yields_every_event_exactly_once(made: list[Line], cuts: bool) -> None:
    clock = Clock()
    service = LogService(clock, made, cuts=cuts)
    end = max(line.readable for line in made) + 5
    tally = Tally()
    events = list(
        follow(
            service,
            GROUPS,
            since=START,
            now=clock.now,
            sleep=clock.sleep,
            until=START + end,
            tally=tally,
        )
    )
    assert said(events) == expected(made)
    assert tally.events == len(made)


@given(lines(), st.sampled_from((0.1, 0.3)), st.booleans())
def test_a_tail_that_is_throttled_in_the_middle_of_its_pages_misses_nothing(
    made: list[Line], throttles: float, until: bool
) -> None:
    clock, tally = Clock(), Tally()
    # Throttles delay looks: of what is very late nothing is promised then.
    made = [replace(line, readable=min(line.readable, line.at + 60), event_id=f"{n}") for n, line in enumerate(made)]
    service = LogService(clock, made, page=3, throttles=throttles, repeats=True)
    end = {"until": START + 1000} if until else {"until_idle": 700}
    events = list(follow(service, GROUPS, since=START, now=clock.now, sleep=clock.sleep, tally=tally, **end))
    assert said(events) == expected(made)


def test_a_throttle_is_waited_out_and_any_other_refusal_is_an_error() -> None:
    clock, tally = Clock(), Tally()
    service = LogService(clock, [Line(30, 30)], throttles=1.0)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        service.throttles = 0.0 if clock.time > START + 60 else 1.0

    tail = follow(service, GROUPS, since=START, now=clock.now, sleep=sleep, until_idle=5, tally=tally)
    assert len(list(tail)) == 1
    assert tally.throttled > 50

    def denied(**_: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "FilterLogEvents")

    service.filter_log_events = denied
    with pytest.raises(ClientError):
        list(follow(service, GROUPS, since=START, now=clock.now, sleep=clock.sleep, until_idle=5))


@pytest.mark.parametrize("named", [True, False])
def test_equal_events_of_one_millisecond_are_as_many_as_they_were(named: bool) -> None:
    clock = Clock()
    made = [Line(1, readable=n % 3 * 20, event_id=f"{n}" if named else None) for n in range(50)]
    if not named:
        made = [replace(line, readable=0) for line in made]  # without ids, equal lines are told apart by their order
    events = list(
        follow(LogService(clock, made), GROUPS, since=START, now=clock.now, sleep=clock.sleep, until_idle=100)
    )
    assert said(events) == expected(made)


@given(lines(), st.integers(0, 600))
def test_ctrl_c_ends_a_tail_with_a_last_look(made: list[Line], after: int) -> None:
    clock = Clock()
    clock.interrupt_at = START + after
    tally = Tally()
    service = LogService(clock, made)
    events = list(follow(service, GROUPS, since=START, now=clock.now, sleep=clock.sleep, tally=tally))
    assert tally.interrupted
    met = said(events)
    assert met == met & expected(made)  # none that is not there, none twice
    assert met >= expected([line for line in made if line.readable <= after])


@given(lines(), st.integers(1, 200))
def test_ctrl_c_during_a_look_loses_nothing_that_it_had_read(made: list[Line], call: int) -> None:
    clock = Clock()
    tally = Tally()
    service = LogService(clock, made, interrupted_call=call)
    events = list(
        follow(service, GROUPS, since=START, now=clock.now, sleep=clock.sleep, tally=tally, until=START + 3_000)
    )
    met = said(events)
    assert met == met & expected(made)
    assert tally.interrupted == (service.interrupted_at is not None)
    readable = float("inf") if service.interrupted_at is None else service.interrupted_at
    assert met >= expected([line for line in made if line.readable <= readable])


@given(lines())
def test_a_history_is_in_order_and_whole(made: list[Line]) -> None:
    clock = Clock()
    clock.time = START + 100_000
    service = LogService(clock, made)
    events = list(history(service, GROUPS, since=START, until=START + 700))
    assert said(events) == expected(made)
    assert [event.time for event in events] == sorted(event.time for event in events)


def test_an_answer_that_is_cut_without_a_token_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_events, "PAGE", 10)
    made = [Line(at=number // 3 / 10, readable=0, message=str(number % 2)) for number in range(100)]
    clock = Clock()
    clock.time = START + 100
    events = list(history(LogService(clock, made, cuts=True), GROUPS, since=START, until=START + 50))
    assert said(events) == expected(made)


def test_it_ends_when_nothing_came_for_a_while() -> None:
    clock = Clock()
    service = LogService(clock, [Line(1, 1), Line(4, 9), Line(60, 60)])
    events = list(follow(service, GROUPS, since=START, now=clock.now, sleep=clock.sleep, until_idle=10))
    assert [event.time.timestamp() - START for event in events] == [1, 4]
    assert 18 < clock.time - START < 25


def test_the_overlap_widens_with_the_lateness_that_it_meets_and_narrows_again() -> None:
    late = [Line(number, number + 20, event_id=f"late{number}") for number in range(40)]
    prompt = [Line(number, number, event_id=f"prompt{number}") for number in range(600)]
    clock = Clock()
    tally = Tally()
    service = LogService(clock, late + prompt)
    events = list(
        follow(
            service,
            GROUPS,
            since=START,
            now=clock.now,
            sleep=clock.sleep,
            until=START + 600,
            tally=tally,
        )
    )
    assert len(events) == 640
    assert tally.late >= 39
    assert 38 <= tally.widest_overlap <= 60


def test_a_stream_whose_clock_is_ahead_does_not_hide_the_others() -> None:
    clock = Clock()
    made = [Line(5_000, 1, event_id="ahead"), *(Line(n, n + 1, event_id=f"{n}") for n in range(2, 60))]
    events = list(
        follow(
            LogService(clock, made),
            GROUPS,
            since=START,
            now=clock.now,
            sleep=clock.sleep,
            until_idle=20,
        )
    )
    assert len(events) == 59


def test_a_group_that_does_not_exist_yet_is_empty_until_it_does() -> None:
    clock = Clock()
    service = LogService(clock, [Line(1, 1), Line(2, 2, group="/aws/lambda/w")], groups=("/aws/lambda/p",))

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.time > START + 5:
            service.groups = ("/aws/lambda/p", "/aws/lambda/w")

    events = follow(service, GROUPS, since=START, now=clock.now, sleep=sleep, until_idle=10)
    assert [event.function for event in events] == ["processor", "writer"]


IMAGE = "c69f5ffb-0959-5aa3-908a-90844fa66ccc"


def invocation(request: str, *messages: str, at: float = 1) -> list[Line]:
    said = (f"START RequestId: {request} Version: 1", *messages, f"REPORT RequestId: {request} Duration: 1 ms")
    return [Line(at + number / 100, at, message, event_id=f"{request}{number}") for number, message in enumerate(said)]


def test_the_lines_of_an_image_include_those_of_its_invocations() -> None:
    own = json.dumps({"imageId": IMAGE, "requestId": "r1"})
    other = json.dumps({"imageId": "another", "requestId": "r1"})
    made = [*invocation("r1", own, other), *invocation("r2", other.replace("r1", "r2"), at=2)]
    clock = Clock()
    clock.time = START + 100
    service = LogService(clock, made)
    found = list(about(service, GROUPS, IMAGE, since=START, until=START + 50))
    assert [event.message for event in found] == [made[0].message, own, made[3].message]
    tailed = list(filter(OfImage(IMAGE), history(service, GROUPS, since=START, until=START + 50)))
    assert [event.message for event in tailed] == [own, made[3].message]  # a tail cannot know what START is about


@pytest.mark.parametrize(
    ("message", "level", "failed"),
    [
        ('{"level":"INFO","event":"image"}', "INFO", False),
        ('{"level":"WARN","code":"CORRUPT"}', "WARN", True),
        ('{"level":"error"}', "ERROR", True),
        ("2026-11-23T19:28:50.755Z r1 Task timed out after 60.00 seconds", "ERROR", True),
        ("RequestId: r1 Error: Runtime exited with error: signal: killed", "ERROR", True),
        ("REPORT RequestId: r1\tDuration: 60000 ms\tStatus: timeout", "ERROR", True),
        ("[ERROR] KeyError: 'x'\nTraceback (most recent call last):", "ERROR", True),
        ("[WARNING]\t2026\tr1\tslow", "WARNING", False),
        ("START RequestId: r1 Version: $LATEST", None, False),
        ("{not json}", None, False),
        ("[1, 2]", None, False),
    ],
)
def test_what_a_line_is(message: str, level: str | None, failed: bool) -> None:
    event = log_event({"timestamp": 1000, "message": message, "logStreamName": "s"}, "processor")
    assert (event.level, event.failed) == (level, failed)
    assert event.time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)


@given(st.text(), st.integers(0, 2**41))
def test_any_line_is_an_event(message: str, timestamp: int) -> None:
    event = log_event({"timestamp": timestamp, "message": message, "eventId": "1"}, "writer")
    assert event.message == message.rstrip("\n")
