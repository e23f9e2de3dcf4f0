"""The rules as tests of a real server evaluate them."""

from __future__ import annotations

import pytest
import yaml

from tests.helpers.prometheus import short, shortened


@pytest.mark.parametrize(
    ("long", "expected"), [("30s", "5s"), ("5m", "5s"), ("10m", "10s"), ("1h", "60s"), ("1h30m", "60s"), ("4w", "60s")]
)
def test_a_window_is_60_times_shorter_within_bounds(long: str, expected: str) -> None:
    assert short(long) == expected


def test_windows_offsets_and_for_are_shortened_and_names_are_not() -> None:
    rule = {"alert": "A", "expr": "avg_over_time(task:x:rate5m[7d:1h] offset 7d) > 3600 * rate(y[30m])", "for": "10m"}
    [group] = yaml.safe_load(shortened(yaml.safe_dump({"groups": [{"name": "g", "rules": [rule]}]})))["groups"]
    expected = "avg_over_time(task:x:rate5m[60s:1s] offset 60s) > 3600 * rate(y[30s])"
    assert group == {"name": "g", "interval": "1s", "rules": [{"alert": "A", "expr": expected, "for": "10s"}]}
