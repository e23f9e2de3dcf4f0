"""The made month has what was planted, at its hours, in texts that are different stories."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from loadtests.scenarios.market_month import COPIES, HOURS, month, plan

END = datetime(2026, 5, 1, tzinfo=UTC)
TOPICS = [f"topic {number}" for number in range(30)]
POOL = {label: [f"a {label} headline", f"another {label} one"] for label in ("positive", "neutral", "negative")}


def test_the_month_has_what_was_planted() -> None:
    planned = plan(TOPICS)
    found = month(END, TOPICS, POOL, planned)
    assert len({headline.id for headline in found}) == len(found)
    assert [one.published for one in found] == sorted(one.published for one in found)
    assert END - timedelta(hours=HOURS) <= found[0].published <= found[-1].published < END
    copies = [one for one in found if one.id.startswith("market/copy")]
    assert (len(copies), {one.topic for one in copies}) == (COPIES, {planned.copied})
    texts = [one.text for one in found if one not in copies]
    assert len({text.rpartition(" ")[2] for text in texts}) == len(texts)  # each has a number of its own
    by_hour = Counter((one.topic, HOURS + (one.published - END) // timedelta(hours=1)) for one in found)
    for surge in (*planned.surges, planned.rise):
        assert all(by_hour[surge.topic, hour] >= surge.per_hour for hour in range(surge.first, surge.after))
    quiet = [count for (topic, _), count in by_hour.items() if topic == TOPICS[0]]
    assert max(quiet) <= 3


def test_the_shares_of_labels_are_even() -> None:
    planned = plan(TOPICS)
    rise = [
        one
        for one in month(END, TOPICS, POOL, planned)
        if one.topic == planned.rise.topic
        and planned.rise.first <= HOURS + (one.published - END) / timedelta(hours=1) < planned.rise.after
    ]
    negative = sum("negative" in one.text for one in rise)
    assert abs(negative / len(rise) - 0.25) < 0.08
