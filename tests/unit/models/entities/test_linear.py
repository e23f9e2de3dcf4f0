"""Every search takes time in proportion to the text, whatever the text: no pattern can be made to hang."""

from __future__ import annotations

import time

import pytest

from models.entities import default_engine
from models.entities.detectors import DETECTORS
from models.entities.engine import Engine
from models.entities.patterns import Detect, detectors_of
from models.entities.registry import package_registry
from models.entities.scan import Scan

_LENGTH = 12_000  # characters
_MAX_S = 0.6  # quadratic ones take minutes, or did when they were written; the slowest linear one takes 0.1
UNITS = [
    "9", "1 ", "1-", "1.", "1,", "1:", "1/", "11 ", "123-", "1234 ", "12.5.", "12:30:", "a1", "A-1-", "1a", "AB12",
    "00 ", "+1 ", "(1", "1)", "$1", "1€ ", "€", "1 may ", "may 1 ", "may", "1 of ", "order 1 ", "order ", "#1", "#",
    "number is ", "order no 12, ", "a", "aB3", "a ", "a.", "a-", "a@", "@", "a at b dot ", "a(at)", "(", "[", "= ",
    "pass=1", "token=a1", "my pin is 1", "://a:1", "/aB1", "sk-", "eyJ", "bearer a1", "1Z", "0x1", "bc1", "iban de1",
    "DE89 ", "f:", "::1", "half past ", "twenty-one ", "noon ", "5 p.m.", "14h", "à 14 h", "年1", "1月1日", "１", "٣",
    "\u200f1", "hi ann ", "mr smith ", "my name is a ", "thanks, ann ", "'", "_", "user name a1", "\n", " ", "ä", "İ",
    "，1",
]  # fmt: skip


def detectors() -> dict[str, Detect]:
    named = {name: one.detect for name, one in DETECTORS.items()}
    for kind in package_registry().types:
        for at, one in enumerate(detectors_of(kind)):
            named[f"{kind.name} {at}"] = one.detect
    return named


def slowest(detect: Detect) -> tuple[float, str]:
    """(seconds, unit) of the unit whose repetition takes longest."""
    took = []
    for unit in UNITS:
        scan = engine()._scan((unit * _LENGTH)[:_LENGTH])
        scan.context, scan.runs  # noqa: B018  # which others share
        begun = time.process_time()
        for _ in detect(scan):
            pass
        took.append((time.process_time() - begun, unit))
    return max(took)


def engine() -> Engine:
    return default_engine()


@pytest.mark.parametrize("name", sorted(detectors()))
def test_a_search_is_linear(name: str) -> None:
    seconds, unit = slowest(detectors()[name])
    assert seconds < _MAX_S, unit


def test_context_and_runs_are_linear() -> None:
    for unit in UNITS:
        scan = Scan((unit * _LENGTH)[:_LENGTH], engine()._context)
        begun = time.process_time()
        scan.context, scan.runs  # noqa: B018
        assert time.process_time() - begun < _MAX_S, unit


def test_the_engine_is_linear() -> None:
    for unit in UNITS:
        text = (unit * _LENGTH)[:_LENGTH]
        begun = time.process_time()
        engine().personal(text)
        engine().entities(text)
        assert time.process_time() - begun < 3 * _MAX_S, unit
