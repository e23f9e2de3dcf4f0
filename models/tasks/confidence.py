"""The confidence of an answer in words, from its calibrated score."""

from __future__ import annotations

from typing import Literal, NamedTuple

from export.bundle import Confidence, Manifest

Word = Literal["high", "medium", "low"]
_NEVER = 2.0  # above all scores


class Bounds(NamedTuple):
    """The smallest scores of answers with high and with medium confidence."""

    high: float
    medium: float

    def word(self, score: float) -> Word:
        return "high" if score >= self.high else "medium" if score >= self.medium else "low"


WITHOUT_MEASUREMENT = Bounds(0.9, 0.5)
"""for a version whose training derived no bounds: older ones, and those of too few texts or too many labels"""


def bounds_of(manifest: Manifest) -> Bounds:
    """A version's bounds: those derived at its training, if it has them."""
    found = measured(manifest)
    if found is None:
        return WITHOUT_MEASUREMENT
    high = _NEVER if found.high is None else found.high
    return Bounds(high, min(high, _NEVER if found.medium is None else found.medium))


def measured(manifest: Manifest) -> Confidence | None:
    return manifest.linear.confidence if manifest.linear is not None else None
