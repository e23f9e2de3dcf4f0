"""Trends: points of any step in any zone, which always add up to the documents of their range."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.opinion.trends import MAX_POINTS, Grid, Step, TrendError, body, grid, parse_moment, parse_step, parse_zone
from models.opinion.types import Counts

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia",
         "America/Sao_Paulo", "Africa/Monrovia", "Pacific/Chatham")  # fmt: skip
STEPS = ("1m", "7m", "15m", "20m", "1h", "6h", "7h", "PT1H30M", "1d", "P3D", "1w", "2w", "1mo")
UTC_ZONE = ZoneInfo("UTC")


def at(text: str) -> datetime:
    return parse_moment("start", text)


def rows_of(seconds: list[int], made: Grid) -> list[tuple[int, ...]]:
    """What the store would find for documents published at these seconds: one row a unit, of counts by `rollup_s`."""
    units: dict[int, int] = {}
    for second in seconds:
        stretch = second // made.rollup_s * made.rollup_s
        if made.start <= stretch < made.end:
            unit = (stretch - made.start) // made.unit_s
            units[unit] = units.get(unit, 0) + 1
    return [(unit, number, number, 0, 0, number, number, 0) for unit, number in units.items()]


@settings(max_examples=80, deadline=None)
@given(
    start=st.datetimes(datetime(1970, 1, 2), datetime(2060, 1, 1)),
    step=st.sampled_from(STEPS),
    zone=st.sampled_from(ZONES),
    points=st.floats(0.001, 60),
    documents=st.lists(st.floats(-0.2, 1.2), max_size=20),
)
def test_points_add_up_to_the_documents_of_their_range_whatever_the_step(
    start: datetime, step: str, zone: str, points: float, documents: list[float]
) -> None:
    begin, parsed = start.replace(tzinfo=UTC), parse_step(step)
    length = parsed.seconds * points
    made = grid(begin, begin + timedelta(seconds=max(1.0, length)), parsed, ZoneInfo(zone))
    assert made.start <= begin.timestamp() < made.end
    assert made.edges[1] > begin.timestamp()  # no point before the one that has the start,
    assert made.edges[-2] < begin.timestamp() + max(1.0, length) <= made.end  # and none after that of the end
    assert made.rollup_s == (900 if parsed.seconds % 900 == 0 else 60)
    assert (made.unit_s % made.rollup_s, made.start % made.rollup_s) == (0, 0) or zone == "Africa/Monrovia"
    seconds = [int(begin.timestamp() + length * fraction) for fraction in documents]
    found = made.points(rows_of(seconds, made))
    inside = [s for s in seconds if made.start <= s // made.rollup_s * made.rollup_s < made.end]
    assert sum(point.counts.texts for point in found) == len(inside)
    assert len(found) == len(made.edges) - 1
    for point, second in zip(found, made.edges.tolist(), strict=False):
        assert point.time.timestamp() == second


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2026-10-26", 24)]
)  # the clock changes in Berlin
def test_a_day_has_the_hours_of_its_zone(day: str, hours: int) -> None:
    noon = datetime.fromisoformat(f"{day}T12:00:00+01:00")
    made = grid(noon, noon + timedelta(seconds=1), parse_step("1d"), ZoneInfo("Europe/Berlin"))
    assert (made.end - made.start) / 3600 == hours
    hourly = grid(
        datetime.fromtimestamp(made.start, UTC), datetime.fromtimestamp(made.end, UTC), parse_step("1h"), made.zone
    )
    assert len(hourly.points([])) == hours


def test_times_are_local() -> None:
    made = grid(at("2026-03-28T12:00:00Z"), at("2026-03-30T12:00:00Z"), parse_step("1d"), ZoneInfo("Europe/Berlin"))
    assert [point["time"] for point in body(None, made, made.points([]))["points"]] == [
        "2026-03-28T00:00:00+01:00", "2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00",
    ]  # fmt: skip


def test_a_day_that_a_zone_left_out_has_no_point() -> None:
    made = grid(at("2011-12-29T12:00:00Z"), at("2012-01-01T00:00:00Z"), parse_step("1d"), ZoneInfo("Pacific/Apia"))
    assert [f"{point.time:%d}" for point in made.points([])] == ["29", "31", "01"]


def test_a_midnight_that_does_not_exist_is_when_the_day_begins() -> None:
    made = grid(at("2018-11-04T12:00:00Z"), at("2018-11-04T13:00:00Z"), parse_step("1d"), ZoneInfo("America/Sao_Paulo"))
    assert (made.points([])[0].time.isoformat(), made.end - made.start) == ("2018-11-04T01:00:00-02:00", 23 * 3600)


@pytest.mark.parametrize(
    ("step", "times"),
    [
        ("1w", ["2026-04-27", "2026-05-04"]),  # Mondays
        ("1mo", ["2026-05-01"]),
        ("6h", ["2026-05-03T18", "2026-05-04T00", "2026-05-04T06"]),
        ("P1M", ["2026-05-01"]),
    ],
)
def test_points_begin_where_a_reader_expects_them(step: str, times: list[str]) -> None:
    made = grid(at("2026-05-03T20:00:00Z"), at("2026-05-04T11:00:00Z"), parse_step(step), UTC_ZONE)
    assert [point.time.isoformat()[: len(times[0])] for point in made.points([])] == times


def test_gaps_are_zeros() -> None:
    made = grid(at("2026-05-01T00:00:00Z"), at("2026-05-01T03:00:00Z"), parse_step("1h"), UTC_ZONE)
    points = body("airlines", made, made.points([(1, 4, 3, 0, 1, 2, 2, 0)]))
    assert (points["topic"], points["step_s"]) == ("airlines", 3600)
    assert [point["texts"] for point in points["points"]] == [0, 4, 0]
    assert points["points"][0] == {
        "time": "2026-05-01T00:00:00Z", "texts": 0, "stories": 0, "positive": 0, "neutral": 0, "negative": 0,
        "net": 0.0,
    }  # fmt: skip
    assert points["points"][1]["net"] == 1.0


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("1m", Step("s", 60)), ("15m", Step("s", 900)), ("PT15M", Step("s", 900)), ("PT1H30M", Step("s", 5400)),
        ("1h", Step("s", 3600)), ("PT24H", Step("s", 86_400)), ("1d", Step("d", 1)), ("P1D", Step("d", 1)),
        ("1w", Step("w", 1)), ("P2W", Step("w", 2)), ("1mo", Step("mo", 1)), ("P1M", Step("mo", 1)),
    ],
)  # fmt: skip
def test_steps(text: str, step: Step) -> None:
    assert parse_step(text) == step


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0m", "no time at all"), ("PT0M", "no time at all"), ("P0D", "no time at all"), ("0", "is no step"),
        ("", "is no step"), ("P", "is no step"), ("PT", "is no step"), ("30s", "is no step"), ("PT30S", "is no step"),
        ("-1h", "is no step"), ("1.5h", "is no step"), ("1h\n2", "is no step"), ("P1Y", "is no step"),
        ("2mo", "longer than a month"), ("32d", "longer than a month"), ("999999h", "longer than a month"),
        ("9" * 5000 + "m", "is no step"), ("fortnight", "is no step"), ("١m", "is no step"),
    ],
)  # fmt: skip
def test_bad_steps(text: str, says: str) -> None:
    with pytest.raises(TrendError, match=says) as error:
        parse_step(text)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2026-05-01T00:00:00", "has no zone"), ("2026-05-01", "has no zone"), ("yesterday", "is no time"),
        ("1969-12-31T23:59:59Z", "not between"), ("0001-01-01T00:00:00+14:00", "not between"),
        ("9999-12-31T23:59:59-12:00", "not between"), ("2026-02-30T00:00:00Z", "is no time"), ("", "is no time"),
        ("1777777777", "is no time"), ("9" * 5000, "is no time"),
    ],
)  # fmt: skip
def test_bad_times(text: str, says: str) -> None:
    with pytest.raises(TrendError, match=says) as error:
        parse_moment("start", text)
    assert str(error.value).startswith("start: ")
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "../../etc/passwd", "/etc/passwd", "Europe", "a\x00b", "x" * 5000]
)
def test_unknown_zones(name: str) -> None:
    with pytest.raises(TrendError, match="tz: there is no time zone"):
        parse_zone(name)


@pytest.mark.parametrize(
    ("start", "end", "step", "says"),
    [
        ("2026-05-02T00:00:00Z", "2026-05-01T00:00:00Z", "1h", "start: .* not before the end"),
        ("2026-05-01T00:00:00Z", "2026-05-01T00:00:00Z", "1h", "start: .* not before the end"),
        ("2024-05-01T00:00:00Z", "2026-05-01T00:00:00Z", "1m", "1,051,200 points; at most 10,000"),
        ("1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z", "1m", "points; at most 10,000"),
        ("1970-01-01T00:00:00Z", "2200-01-01T00:00:00Z", "1d", "points; at most 10,000"),
    ],
)
def test_ranges_that_no_trend_has(start: str, end: str, step: str, says: str) -> None:
    with pytest.raises(TrendError, match=says):
        grid(at(start), at(end), parse_step(step), UTC_ZONE)


def test_the_bound_is_met_exactly() -> None:
    start = at("2026-05-01T00:00:00Z")
    assert (
        len(grid(start, start + MAX_POINTS * timedelta(minutes=1), parse_step("1m"), UTC_ZONE).points([])) == MAX_POINTS
    )
    with pytest.raises(TrendError, match="10,001 points"):
        grid(start, start + (MAX_POINTS + 1) * timedelta(minutes=1), parse_step("1m"), UTC_ZONE)


def test_the_net_of_no_story_is_zero() -> None:
    assert Counts(texts=1).net == 0.0
    assert Counts(3, 1, 0, 2, 4, 1, 3).net == -0.5


@pytest.mark.parametrize(("zone", "year"), [("Africa/Monrovia", 1971), ("Pacific/Kiritimati", 1978)])
def test_days_of_a_zone_without_whole_quarters_have_counts_that_are_kept(zone: str, year: int) -> None:
    """Its days are made of quarters of an hour, as those of all zones, and are cut at the next one."""
    made = grid(at(f"{year}-03-01T12:00:00Z"), at(f"{year}-03-03T12:00:00Z"), parse_step("1d"), ZoneInfo(zone))
    assert (made.rollup_s, made.start % 900 > 0) == (900, True)
    midnight = int(made.edges[1])
    rows = rows_of([midnight - 900, midnight + 900], made)
    assert [point.counts.texts for point in made.points(rows)] == [1, 1, 0]


def test_months_up_to_the_last_year() -> None:
    made = grid(at("2190-01-01T00:00:00Z"), at("2200-01-01T00:00:00Z"), parse_step("1mo"), UTC_ZONE)
    assert len(made.points([])) == 120
