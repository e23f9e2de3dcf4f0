"""What Presidio's pattern recognizers find: a JSON list of texts on stdin, spans, time and memory as JSON on stdout.

Run by entities.py in a Python that has presidio-analyzer. No language model: a blank pipeline of spaCy splits the
words, and the recognizers of names are left out.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from typing import Any

# Presidio's types by ours, for those that both know. Ids are of the countries that its recognizers know.
TYPES = {
    "EMAIL_ADDRESS": "email",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "IBAN_CODE": "iban",
    "IP_ADDRESS": "ip",
    "MAC_ADDRESS": "id",
    "CRYPTO": "wallet",
    "DATE_TIME": "date",
    "US_BANK_NUMBER": "account",
}
_MIN_SCORE = 0.35  # patterns that could be anything have less, unless a word around them says what they are
_ID_PREFIXES = (
    "US_",
    "UK_",
    "ES_",
    "IT_",
    "PL_",
    "SG_",
    "AU_",
    "IN_",
    "FI_",
    "KR_",
    "DE_",
    "TH_",
    "NG_",
    "SE_",
    "TR_",
    "CA_",
)


def analyzer() -> Any:
    import spacy
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Blank(SpacyNlpEngine):
        def __init__(self) -> None:
            super().__init__(models=[{"lang_code": "en", "model_name": "blank"}])
            self.nlp = {"en": spacy.blank("en")}

        def load(self) -> None:
            """There is nothing to load."""

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.remove_recognizer("SpacyRecognizer")
    return AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])


def main() -> None:
    logging.disable(logging.WARNING)
    texts = json.load(sys.stdin)
    engine = analyzer()

    def spans(text: str) -> list[tuple[str, int, int]]:
        return [
            (_type(one.entity_type), one.start, one.end)
            for one in engine.analyze(text, language="en", score_threshold=_MIN_SCORE)
        ]

    found = [spans(text) for text in texts]
    begun = time.process_time()
    for text in texts:
        spans(text)
    us = (time.process_time() - begun) / len(texts) * 1e6
    print(json.dumps({"spans": found, "us": us, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _type(name: str) -> str:
    return TYPES.get(name) or ("id" if name.startswith(_ID_PREFIXES) else name.lower())


if __name__ == "__main__":
    main()
