"""A training that makes no sense is refused before it begins, and one that is done is not lost to its precision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from export.errors import ParityError
from models.data.dataset import DatasetError
from models.training.candidate import TrainingJob, parity_sample
from models.training.families.base import Evaluated
from models.training.pipeline import _export_or_fp32, build_candidate
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


def test_files_of_items_and_users_need_a_file_of_events_and_a_ranker(tmp_path: Path) -> None:
    for files in ({"items": Path("items.csv")}, {"users": Path("users.csv")}):
        with pytest.raises(ValueError, match="need a file of events: give it with --data"):
            TrainingJob("recommendation", **files)
    job = TrainingJob("intent", Path("own.csv"), items=Path("items.csv"))
    with pytest.raises(DatasetError, match="intent learns labels of texts"):
        build_candidate(job, tmp_path, quiet)


def test_what_int8_changes_too_much_is_exported_in_fp32_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[str, tuple[str, ...]]] = []

    def export(family: object, job: TrainingJob, *arguments: Any) -> tuple[str, Evaluated]:
        tried.append((job.precision, arguments[-1]))
        if job.precision != works:
            raise ParityError(f"{job.precision} export moves 40.0% of the labels.")
        return "bundle", Evaluated({"accuracy": 0.5})

    monkeypatch.setattr("models.training.pipeline.export", export)
    unused: Any = None
    works = "fp32"
    _, evaluated = _export_or_fp32(unused, TrainingJob("intent"), unused, unused, Path(), ("of the base",))
    assert evaluated.metrics == {"accuracy": 0.5}
    (int8, told), (fp32, (_, note)) = tried
    assert (int8, told, fp32) == ("int8", ("of the base",), "fp32")
    assert note.startswith("int8 export moves 40.0% of the labels. It is exported in fp32 instead")
    works = "none"
    with pytest.raises(ParityError, match="fp32 export moves"):
        _export_or_fp32(unused, TrainingJob("intent"), unused, unused, Path(), ())


def test_parity_of_a_large_holdout_is_measured_on_a_sample_of_it() -> None:
    texts = [str(i) for i in range(100_000)]
    sample = parity_sample(texts, 7)
    assert len(sample) == len(set(sample)) == 2000
    assert parity_sample(texts[:500], 7) == texts[:500]
