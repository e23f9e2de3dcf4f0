"""The simulations of labelling and discovery: how their figures come about."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.quality.discovery import LEFT_OUT, tens
from loadtests.quality.labelling import MAX_LABELS, STEP, labels_to_reach, ratio, sizes

FIRST = 385
STEPS = (MAX_LABELS - FIRST) // STEP + 2


def rising(speed: float) -> np.ndarray:
    """An accuracy that depends on labels by a power law."""
    return 1 - (sizes(FIRST, STEPS) * speed) ** -0.3


def test_twice_as_useful_labels_are_half_as_many() -> None:
    assert ratio(rising(2.0), rising(1.0), FIRST, 3000) == pytest.approx(0.5, abs=0.01)
    assert ratio(rising(1.0), rising(1.0), FIRST, 2000) == pytest.approx(1.0, abs=0.01)
    assert ratio(rising(0.5), rising(1.0), FIRST, 2000) == np.inf


def test_one_lucky_step_has_not_arrived() -> None:
    lucky = rising(1.0)
    lucky[3] = 0.99
    assert labels_to_reach(lucky, FIRST, 0.98) == np.inf
    assert labels_to_reach(rising(1.0), FIRST, 0.0) == FIRST


def test_no_label_is_chosen_on_and_reported() -> None:
    labels = [f"label {n}" for n in range(77)]
    chosen, reported = (
        [label for ten in tens(labels, choosing=choosing) for label in ten] for choosing in (True, False)
    )
    assert len({*chosen, *reported}) == len(chosen) + len(reported) == 7 * LEFT_OUT
