"""How long a wait is let in, from the waits that were seen."""

from __future__ import annotations

import pytest

from serve.engine.admission import Admission


def test_all_of_the_target_while_waits_are_as_guessed() -> None:
    admission = Admission(2.0)
    for second in range(100):
        admission.observe_wait(2.4, float(second))  # the mean was guessed, so some wait longer
    assert admission.bound_s == 2.0


def test_late_requests_lower_it_at_once_and_it_comes_back_in_seconds() -> None:
    admission = Admission(2.0)
    admission.observe_wait(2.6, 100.0)
    assert admission.bound_s == pytest.approx(1.8)
    for _ in range(20):  # one batch of them is one sign, not twenty
        admission.observe_wait(2.6, 100.01)
    assert admission.bound_s == pytest.approx(1.8, rel=0.01)
    admission.observe_wait(1.0, 101.0)
    assert 1.8 < admission.bound_s < 1.9
    admission.observe_wait(1.0, 120.0)
    assert admission.bound_s == 2.0


def test_however_late_they_are_some_are_let_in() -> None:
    admission = Admission(2.0)
    for step in range(1000):
        admission.observe_wait(60.0, step * 0.2)
    assert 0.5 <= admission.bound_s < 0.6


def test_a_full_replica_need_not_see_what_it_would_refuse_unless_some_of_it_is_known() -> None:
    admission = Admission(1.0)
    assert admission.full_s(min_wait_s=0.8) == 0.0  # a short text can still be taken
    assert admission.full_s(min_wait_s=1.1) == pytest.approx(0.1)
    for number in range(200):
        admission.arrived(cached=number % 2 == 0)
    assert admission.full_s(min_wait_s=1.1) == 0.0
    for _ in range(200):
        admission.arrived(cached=False)
    assert admission.full_s(min_wait_s=1.1) == pytest.approx(0.1)


def test_however_long_may_be_waited_a_replica_is_asked_again_soon() -> None:
    assert Admission(300.0).full_s(min_wait_s=301.0) == pytest.approx(0.5)


def test_a_replica_that_answers_early_too_is_full_for_as_long_as_its_event_loop_is_late() -> None:
    admission = Admission(1.0)
    for number in range(200):
        admission.arrived(cached=number % 2 == 0)
    admission.observe_lag(0.05)
    assert admission.full_s(min_wait_s=1.1) == pytest.approx(0.05)
    assert admission.full_s(min_wait_s=0.1) == 0.0  # the encoder has time: many clients are no overload
    assert admission.late_s() == 0.0
    admission.observe_lag(0.001)
    assert admission.full_s(min_wait_s=1.1) == 0.0
    admission.observe_lag(3.0)
    assert admission.full_s(min_wait_s=1.1) == pytest.approx(0.5)  # then it is asked again


def test_an_event_loop_that_is_later_than_may_be_waited_handles_nothing_however_early() -> None:
    admission = Admission(1.0)
    admission.observe_lag(0.4)
    assert admission.late_s() == 0.0
    admission.observe_lag(0.6)  # and about as long unread in its socket
    assert admission.late_s() == pytest.approx(0.5)
    impatient = Admission(0.05)
    impatient.observe_lag(0.1)  # as after one large request
    assert impatient.late_s() == 0.0
