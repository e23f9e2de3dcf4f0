"""National identification numbers: patterns, each with the python-stdnum module that validates it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

from models.feedback.pii.context import Topic, topic
from models.feedback.pii.found import Found


class _Row(NamedTuple):
    shape: str
    module: str | None = None
    """of stdnum; None: the pattern alone is enough"""


_DIGITS = (
    _Row(r"\d{3}-\d{2}-\d{4}"),  # United States: SSN and ITIN, including unassigned ones
    _Row(r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "de.idnr"),
    _Row(r"[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[ABab]) ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    _Row(r"\d{3}\.\d{3}\.\d{3}-\d{2}"),  # Brazil: CPF in printed format
    _Row(r"\d{9}-?\d{2}", "br.cpf"),
    _Row(r"(?<!\b\d{4}[ -])[2-9]\d{3}[ -]\d{4}[ -]\d{4}(?![ -]\d{4}\b)", "in_.aadhaar"),
    _Row(r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    _Row(r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    _Row(r"\d{6}-\d{4}", "dk.cpr"),
    _Row(r"\d{6} ?\d{5}", "no.fodselsnummer"),
    _Row(r"756\.?\d{4}\.?\d{4}\.?\d{2}", "ch.ssn"),
    _Row(r"\d{17}[\dXx]", "cn.ric"),
    _Row(r"\d{6}-\d{7}", "kr.rrn"),
    _Row(r"[1-9]\d{10}", "tr.tckimlik"),
    _Row(r"\d{6}/\d{3,4}", "cz.rc"),
    _Row(r"[1-8]\d{12}", "ro.cnp"),
)
_LETTERS = (
    _Row(r"(?:[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]|QQ)(?: ?\d{2}){3} ?[A-D]"),  # United Kingdom: NINO
    _Row(r"[A-Z]{6}[\dLMNP-V]{2}[A-EHLMPR-T][\dLMNP-V]{2}[A-Z][\dLMNP-V]{3}[A-Z]", "it.codicefiscale"),
    _Row(r"(?:\d{8}|\d{2}\.\d{3}\.\d{3})[ -]?[A-HJ-NP-TV-Z]", "es.dni"),
    _Row(r"[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]", "es.nie"),
    _Row(r"[A-Z]{3}[ABCFGHLJPTK][A-Z]\d{4}[A-Z]", "in_.pan"),
    _Row(r"[A-Z]{4}\d{6}[HM][A-Z]{5}[\dA-Z]\d", "mx.curp"),
    _Row(r"\d{6}[-+A]\d{3}[\dA-Z]", "fi.hetu"),
    _Row(r"\d{7}[A-W][ABHWTX]?", "ie.pps"),
)
_ENDS = r"(?<![\w+])(?<!\d-){}(?![\w])"
_ALONE = [(re.compile(_ENDS.format(f"(?:{row.shape})")), row.module) for row in _DIGITS]
_LETTERED = re.compile(_ENDS.format("(?:" + "|".join(f"({row.shape})" for row in _LETTERS) + ")"), re.I)
_NAMED = re.compile(r"(?<!\w)(?:[A-Za-z]{1,3}-?)?\d(?:[ .\-/]{0,2}\d){4,14}(?:-?[A-Za-z0-9]{1,3}| [A-HJ-Z])?(?!\w)")
_NAMED_MIXED = re.compile(r"(?<!\w)(?=[A-Za-z]{0,8}\d)[A-Za-z0-9]{6,18}(?!\w)")


def numeric_ids(text: str, start: int, end: int, about: Topic | None) -> Iterator[Found]:
    """Ids of digits in `text[start:end]`: those with a valid checksum, and any after a word such as "SSN"."""
    for pattern, module in _ALONE if end - start >= 9 else ():
        for match in pattern.finditer(text, start, end):
            if module is None or (about != "ref" and _is_valid(module, match[0])):
                yield Found("id", *match.span())
    if about == "id":
        for match in _NAMED.finditer(text, start, end):
            yield Found("id", *match.span())


def lettered_ids(text: str) -> Iterator[Found]:
    """Ids that contain letters, in either case."""
    for match in _LETTERED.finditer(text):
        module = _LETTERS[match.lastindex - 1].module if match.lastindex else None
        if module is None or _is_valid(module, match[0].upper()):
            yield Found("id", *match.span())
    for match in _NAMED_MIXED.finditer(text):
        if topic(text, match.start()) == "id":
            yield Found("id", *match.span())


def _is_valid(module: str, number: str) -> bool:
    return bool(_module(module).is_valid(number))


@cache
def _module(name: str) -> Any:
    return import_module(f"stdnum.{name}")
