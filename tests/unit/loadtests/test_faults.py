"""The command that puts faults into a server: its names, what counts as missed, and the page that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.faults import page
from loadtests.faults.__main__ import main, parse
from loadtests.faults.bounds import BOUNDS, DEMANDED, Bound
from loadtests.faults.catalogue import CLIENTS, NAMES
from loadtests.faults.clients import BROKEN, Answer, Traffic
from loadtests.faults.measurement import Measurement, evaluate, missed
from loadtests.faults.page import WHAT, Run
from loadtests.faults.server import Server


class Stored(Server):
    """A server of which only the store is asked."""

    def __init__(self, *texts: str):
        self._texts = set(texts)

    def stored(self) -> set[str]:
        return self._texts


def traffic(*answers: Answer, feedback: tuple[int, ...] = (202,), accepted: tuple[str, ...] = ("a",)) -> Traffic:
    return Traffic(list(answers), [Answer(0, 0.1, status) for status in feedback], set(accepted))


def found(bound: Bound, seen: Traffic, *stored: str, whole_at: float | None = 12.0) -> Measurement:
    return evaluate("replica-killed", bound, seen, Stored(*stored), began=10.0, since=10.0, whole_at=whole_at)


def test_each_fault_has_a_bound_and_words() -> None:
    assert set(NAMES) == {*BOUNDS, CLIENTS}
    assert set(WHAT) == set(BOUNDS)


def test_what_was_demanded_is_in_the_bounds() -> None:
    assert DEMANDED["haproxy-killed"].failing_s == DEMANDED["haproxy-killed"].normal_s == 3
    for name in ("replica-killed", "replica-frozen"):
        assert (DEMANDED[name].failed, DEMANDED[name].longest_s, DEMANDED[name].normal_s) == (0, 10, 20)
    assert {DEMANDED[name].normal_s for name in ("controller-killed", "manager-killed")} == {30}


def test_a_quiet_fault_misses_nothing() -> None:
    measured = found(Bound(normal_s=20), traffic(Answer(9, 9.1, 200), Answer(10, 10.2, 200)), "a")
    assert (measured.failed, measured.failing_s, measured.lost, measured.missed) == (0, 0.0, 0, [])
    assert measured.normal_s == pytest.approx(2.0)  # until it was whole


def test_what_failed_is_counted_from_the_first_failure_to_the_last() -> None:
    seen = traffic(Answer(9.5, 10.5, 504), Answer(12, 14, BROKEN), Answer(13, 13.1, 200))
    measured = found(Bound(failed=0, failing_s=3, normal_s=3), seen, "a")
    assert (measured.failed, measured.failing_s) == (2, pytest.approx(4.0))
    assert measured.normal_s == pytest.approx(4.0)
    assert measured.missed == [
        "2 predicts failed, at most 0",
        "4 s of errors, at most 3",
        "normal after 4.0 s, at most 3",
    ]


def test_a_slow_answer_is_not_normal_yet() -> None:
    assert found(Bound(), traffic(Answer(11, 18, 200)), "a").normal_s == pytest.approx(8.0)


def test_a_wait_beyond_the_deadline_is_missed() -> None:
    assert found(Bound(), traffic(Answer(10, 21, 200)), "a").missed == ["11 s was the longest wait, at most 10"]


def test_what_never_became_normal_is_missed() -> None:
    measured = found(Bound(normal_s=20), traffic(Answer(10, 10.1, 200)), "a", whole_at=None)
    assert measured.normal_s is None
    assert measured.missed == ["not normal again within 90 s"]


def test_an_accepted_correction_that_is_not_stored_is_lost() -> None:
    measured = found(Bound(), traffic(Answer(10, 10.1, 200), accepted=("a", "b")), "a")
    assert measured.lost == 1
    assert measured.missed == ["1 accepted corrections were lost, at most 0"]


def test_a_correction_may_only_be_answered_as_promised() -> None:
    measured = found(Bound(), traffic(Answer(10, 10.1, 200), feedback=(202, 500, BROKEN)), "a")
    assert measured.missed == ["corrections were answered no answer, 500"]


def test_a_store_that_cannot_be_read_is_missed_and_not_taken_for_whole() -> None:
    class Unreadable(Stored):
        def stored(self) -> set[str]:
            raise OSError("gone")

    seen = traffic(Answer(10, 10.1, 200))
    measured = evaluate("store-killed", Bound(), seen, Unreadable(), began=10, since=10, whole_at=12)
    assert measured.lost is None
    assert measured.missed == missed(measured, Bound()) != []


def test_the_page_has_each_fault_what_was_missed_and_what_could_not_be_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run("a machine, 2 cores", "Flywheel 1.0", minutes=20)
    run.measured = [found(BOUNDS["replica-killed"], traffic(Answer(10, 10.1, 200), Answer(11, 11.2, 504)), "a")]
    run.not_measured = {"clock-back": "there is no libfaketime"}
    run.checks = [("good requests that failed", 0, 0), ("time to an answer, ms", 120, 100)]
    monkeypatch.setattr(page, "PAGE", tmp_path / "faults.md")
    page.write_page(run)
    text = (tmp_path / "faults.md").read_text()
    assert "| `kill -9` of one of two replicas | 2 | 1: 1 × 504 |" in text
    assert "**missed**" in text
    assert "- replica-killed: 1 predicts failed, at most 0." in text
    assert "- time to an answer, ms: 120, at most 100." in text
    assert "there is no libfaketime" in text
    assert len(run.missed()) == 2


def test_the_command_lists_its_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == list(NAMES)
    assert "0 failed, wait 10 s, normal in 20 s" in said


@pytest.mark.parametrize("arguments", [["--only", "earthquake"], ["--only", "memory", "--write"]])
def test_the_command_refuses_what_it_cannot_do(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
