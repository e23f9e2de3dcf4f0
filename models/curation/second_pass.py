"""Presidio as a second pass over the texts of corrections, with a language model that knows names within a sentence.

Optional (`learning.curation.second_pass: presidio`), and only here: corrections are what versions learn from, and they
can wait for the milliseconds that it takes a text (docs/decisions/0046-entities.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

from models.curation.types import Rules
from models.feedback.pii import redact

_INSTALL = "pip install 'flywheel-serve[pii]'"
# Presidio's types and our placeholders. Its dates, places and groups of people stay: a sentence is learned by them.
_PLACEHOLDERS = {
    "PERSON": "name",
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "MAC_ADDRESS": "id",
    "CRYPTO": "wallet",
    "US_SSN": "id",
    "US_ITIN": "id",
    "US_PASSPORT": "id",
    "UK_NHS": "id",
    "UK_NINO": "id",
}
_PLACEHOLDER = re.compile(r"\[\w+\]")
_MIN_SCORE = 0.5  # its patterns without a word around them that says what they are have less


class SecondPassError(Exception):
    """Raised when the second pass that the configuration asks for cannot run; the message says what to install."""


def redaction(rules: Rules) -> Callable[[str], str]:
    """The redaction of corrections before they are learned: the engine's, and the second pass if the rules ask for it.

    Raises SecondPassError.
    """
    if rules.second_pass is None:
        return redact
    analyzer = _analyzer(rules.second_pass_model)
    return lambda text: _without_personal(redact(text), analyzer)


def _without_personal(text: str, analyzer: Any) -> str:
    found = analyzer.analyze(text, language="en", entities=list(_PLACEHOLDERS), score_threshold=_MIN_SCORE)
    taken = [match.span() for match in _PLACEHOLDER.finditer(text)]
    names: dict[tuple[int, int], str] = {}
    for one in sorted(found, key=lambda one: one.start - one.end):  # of overlapping ones the longest
        if not any(one.start < end and start < one.end for start, end in taken):
            taken.append((one.start, one.end))
            names[one.start, one.end] = _PLACEHOLDERS[one.entity_type]
    for start, end in sorted(names, reverse=True):  # from the end, so that the places before stay right
        text = f"{text[:start]}[{names[start, end]}]{text[end:]}"
    return text


@cache
def _analyzer(model: str) -> Any:
    """Presidio with the language model of spaCy, which is never fetched from here."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine
        from presidio_analyzer.nlp_engine import NlpEngineProvider
    except ImportError as error:
        raise SecondPassError(
            f"learning.curation.second_pass: presidio is not installed ({error}). Run: {_INSTALL}"
        ) from error
    if not spacy.util.is_package(model):
        raise SecondPassError(
            f"learning.curation.second_pass_model: there is no model {model!r} of spaCy. "
            f"Run: python -m spacy download {model}"
        )
    configuration = {"nlp_engine_name": "spacy", "models": [{"lang_code": "en", "model_name": model}]}
    return AnalyzerEngine(nlp_engine=NlpEngineProvider(nlp_configuration=configuration).create_engine())
