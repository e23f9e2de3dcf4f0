"""Searches the regular expressions of a registry's types.

The package's are Python's, with lookarounds, each in linear time (tests/unit/models/entities/test_linear.py). Those of
a deployment are RE2's, which are linear whoever writes them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from models.entities.mail import has_any
from models.entities.numbers import THINGS, end_of_word
from models.entities.registry import EntityType, Gate, Pattern
from models.entities.scan import Run, Scan
from models.entities.types import Found

Detect = Callable[[Scan], Iterator[Found]]


class Detector(NamedTuple):
    """A search, and what a text must have so that it can find anything."""

    detect: Detect
    needs: Gate
    hints: tuple[str, ...] = ()


_WHOLE = r"(?<![\w+])(?<!\d-)(?:{})(?![\w])"
_CHECK = re.compile(r"[a-z_]+(\.[a-z_]+)?")
_MIN_ID = 9  # characters of a run of digits in which those with a checksum are searched


def detectors_of(one: EntityType) -> list[Detector]:
    """What searches the package's patterns of the type."""
    found: list[Detector] = []
    numbers = [pattern for pattern in one.patterns if pattern.within == "numbers"]
    if numbers:
        found.append(Detector(_in_numbers(one.name, numbers), "numbers"))
    texts: dict[Pattern, list[Pattern]] = {}
    for pattern in one.patterns:
        if pattern.within == "text":  # those that differ only in what they search for are one expression
            texts.setdefault(pattern.model_copy(update={"regex": "", "check": None}), []).append(pattern)
    return [*found, *(Detector(_in_text(one.name, patterns), key.needs, key.hints) for key, patterns in texts.items())]


def _in_numbers(name: str, patterns: Sequence[Pattern]) -> Detect:
    rows = [
        (_compiled(pattern), pattern.check, _near(name, pattern), _MIN_ID if pattern.whole else 0)
        for pattern in patterns
    ]

    def detect(scan: Scan) -> Iterator[Found]:
        text = scan.unkeyed
        for run in scan.runs:
            around = max(0, run.start - 4), end_of_word(text, run.end)  # may include a plus sign or a letter
            yield from in_run(text, run, *around)

    def in_run(text: str, run: Run, start: int, end: int) -> Iterator[Found]:
        for regex, check, near, min_length in rows:
            if end - start < min_length or (near and run.about not in near):
                continue
            for match in regex.finditer(text, start, end):
                if check is None or (run.about not in THINGS and is_valid(check, match[0])):
                    yield Found(name, *match.span())

    return detect


def _in_text(name: str, patterns: Sequence[Pattern]) -> Detect:
    first = patterns[0]
    joined = first.model_copy(update={"regex": "|".join(f"({one.regex})" for one in patterns)})
    regex = _compiled(joined if len(patterns) > 1 else first)
    checks = [one.check for one in patterns]
    near, group = _near(name, first), first.group or 0
    hints = tuple(hint.lower() for hint in first.hints)

    def detect(scan: Scan) -> Iterator[Found]:
        if hints and not has_any(scan.lowered, hints):
            return
        for match in regex.finditer(scan.spaced):
            check = checks[(match.lastindex or 1) - 1] if len(checks) > 1 else checks[0]
            if check is not None and not is_valid(check, match[0] if first.case else match[0].upper()):
                continue
            if not near or scan.context.topic(match.start()) in near:
                yield Found(name, *match.span(group))

    return detect


def _compiled(pattern: Pattern) -> re.Pattern[str]:
    regex = _WHOLE.format(pattern.regex) if pattern.whole else pattern.regex
    return re.compile(regex, 0 if pattern.case or pattern.within == "numbers" else re.I)


def _near(name: str, pattern: Pattern) -> frozenset[str]:
    return frozenset((name,) if pattern.near is True else pattern.near or ())


def compile_linear(regex: str) -> Any:
    """The expression compiled by RE2. Raises ValueError, whose text says what RE2 does not take."""
    import re2

    options = re2.Options()
    options.log_errors = False
    options.case_sensitive = False
    try:
        return re2.compile(regex, options)
    except re2.error as error:
        told = error.args[0]
        told = told.decode(errors="replace") if isinstance(told, bytes) else told
        raise ValueError(
            f"{regex!r:.80} is no regular expression of RE2 ({told}), which has neither look-around nor back references"
        ) from None


def own_detector(types: Sequence[EntityType]) -> Detect | None:
    """What searches the patterns of the deployment, all of them in one pass; None where there are none."""
    rows = [(one.name, pattern, _near(one.name, pattern)) for one in types for pattern in one.extra]
    if not rows:
        return None
    choices = "|".join(f"(?P<own{at}>{pattern.regex})" for at, (_, pattern, _) in enumerate(rows))
    # Bounded by signs, since RE2 looks neither behind nor ahead.
    regex = compile_linear(rf"(?:\A|[^\pL\pN_])(?:{choices})(?:[^\pL\pN_]|\z)")
    groups = [regex.groupindex[f"own{at}"] for at in range(len(rows))]

    def detect(scan: Scan) -> Iterator[Found]:
        at, end = 0, len(scan.text)
        while at <= end and (match := regex.search(scan.text, at)) is not None:
            number = next(index for index, group in enumerate(groups) if match.start(group) >= 0)
            start, stop = match.span(groups[number])
            name, pattern, near = rows[number]
            if (pattern.check is None or is_valid(pattern.check, scan.text[start:stop].upper())) and (
                not near or scan.context.topic(start) in near
            ):
                yield Found(name, start, stop)
            at = max(stop, at + 1)

    return detect


def is_valid(check: str, number: str) -> bool:
    return bool(check_of(check).is_valid(number))


@cache
def check_of(name: str) -> Any:
    """The module of python-stdnum that validates. Raises ValueError for one that there is not."""
    if _CHECK.fullmatch(name):
        try:
            module = import_module(f"stdnum.{name}")
        except ImportError:
            module = None
        if hasattr(module, "is_valid"):
            return module
    raise ValueError(f"there is no check {name!r}; the modules of python-stdnum are, such as luhn, iban, ean, de.idnr")
