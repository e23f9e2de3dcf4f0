"""The detectors that registry.yaml names: functions for what no pattern can tell."""

from __future__ import annotations

from models.entities.amounts import SPELLED_AMOUNT_HINTS, amounts, spelled_amounts
from models.entities.mail import emails
from models.entities.moments import SPELLED_TIME_HINTS, dates, spelled_times, times
from models.entities.numbers import addresses, cards, ibans, network_cards
from models.entities.patterns import Detector
from models.entities.people import names
from models.entities.references import references
from models.entities.telephone import phones

DETECTORS: dict[str, Detector] = {
    "addresses": Detector(addresses, "two_digits"),
    "amounts": Detector(amounts, "digit"),
    "cards": Detector(cards, "numbers"),
    "dates": Detector(dates, "digit"),
    "emails": Detector(emails, "any"),
    "ibans": Detector(ibans, "two_digits"),
    "names": Detector(names, "any"),
    "network_cards": Detector(network_cards, "two_digits"),
    "phones": Detector(phones, "numbers"),
    "spelled_amounts": Detector(spelled_amounts, "hint", SPELLED_AMOUNT_HINTS),
    "spelled_times": Detector(spelled_times, "hint", SPELLED_TIME_HINTS),
    "references": Detector(references, "digit"),
    "times": Detector(times, "digit"),
}
