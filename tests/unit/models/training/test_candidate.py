"""A training that makes no sense is refused before it begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.data.dataset import DatasetError
from models.training.candidate import TrainingJob
from models.training.pipeline import build_candidate
from tests.helpers.own_corpus import CORRECTIONS


def quiet(stage: str, done: int, total: int) -> None:
    pass


def test_a_ranker_does_not_continue_with_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="continues with interactions, not with labels"):
        build_candidate(TrainingJob("recommendation", parent="1", samples=CORRECTIONS), tmp_path, quiet)


@pytest.mark.parametrize(
    "arguments",
    [
        {"samples": CORRECTIONS},
        {"learned": CORRECTIONS},
        {"parent": "1"},
        {"parent": "1", "samples": CORRECTIONS, "data": Path("own.csv")},
    ],
)
def test_a_job_that_makes_no_sense_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="correction"):
        TrainingJob("intent", **arguments)  # type: ignore[arg-type]
