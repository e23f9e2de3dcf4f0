"""A version's linear reader goes where the version goes: resumed, exported again, continued from."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from export.bundle import LINEAR, Bundle
from export.model import Model
from models.data.dataset import Example, load_dataset
from models.evaluation.gate import gate_classifier
from models.tasks.thresholds import Thresholds
from models.training.candidate import TrainingJob
from models.training.families import family_of
from models.training.pipeline import build_candidate, export_checkpoint, register_candidate
from models.training.unfinished import unfinished_trainings
from tests.helpers.bases import FAMILIES, make_base
from tests.helpers.own_corpus import WORDS, labelled_texts

pytestmark = pytest.mark.usefixtures("one_torch_thread")
ANY_SPEED = Thresholds(max_latency_ratio=1e6)


def fails(*_: object) -> None:
    raise MemoryError


def quiet(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose version 1 has two readers; its export failed at first. Only to be read."""
    folder = tmp_path_factory.mktemp("two")
    home, file = folder / "home", folder / "own.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *labelled_texts(4, 300)])
    base = str(make_base(FAMILIES["bert"], folder / "base"))
    job = TrainingJob("intent", file, "fp32", recipe=(("base", base), ("max_steps", 2)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.training.pipeline.calibration_sample", fails)
        with pytest.raises(MemoryError):
            build_candidate(job, home, quiet)
    (unfinished,) = unfinished_trainings(home, "intent")
    candidate = build_candidate(TrainingJob("intent", resume=unfinished), home, quiet)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.releases.versions._open", fails)  # MLflow takes seconds, and is tested elsewhere
        assert register_candidate(candidate, home) == "1"
    return home


def arrays(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((folder / LINEAR).glob("*.npy"))}


def corrections(count: int) -> tuple[Example, ...]:
    found: Sequence[Example] = labelled_texts(4, count // 4, seed=1)
    return tuple(Example(f"{e.text} xq {WORDS[i % len(WORDS)]}", "refund") for i, e in enumerate(found))


def test_a_resumed_training_has_both_readers_and_so_has_its_export(home: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(home / "bundles" / "intent" / "1")
    manifest = bundle.manifest
    assert manifest.linear is not None
    assert {"encoder.accuracy", "linear.accuracy", "early.share", "confidence.low.share"} <= manifest.metrics.keys()
    assert manifest.linear.confidence is not None
    assert manifest.metrics["linear.accuracy"] > 0.9
    assert not any("linear reader" in note for note in manifest.notes)
    checkpoint = home / "checkpoints" / "intent" / "1"
    assert arrays(bundle.path) == arrays(checkpoint)
    job = TrainingJob("intent", precision="fp16")
    again = export_checkpoint(job, home, checkpoint, tmp_path / "again", manifest)
    assert (again.manifest.precision, again.manifest.linear) == ("fp16", manifest.linear)
    assert arrays(again.path) == arrays(checkpoint)


def test_a_candidate_from_corrections_has_a_new_linear_reader_and_is_judged_by_final_answers(home: Path) -> None:
    work = shutil.copytree(home, home.parent / "continued")
    job = TrainingJob("intent", parent="1", samples=corrections(60), precision="fp32", recipe=(("max_steps", 1),))
    candidate = build_candidate(job, work, quiet)
    manifest = Bundle.open(candidate.bundle).manifest
    before = Bundle.open(home / "bundles" / "intent" / "1").manifest
    assert manifest.linear is not None
    assert before.linear is not None
    assert manifest.linear.blend == before.linear.blend
    assert manifest.linear.confidence == before.linear.confidence
    assert manifest.labels[-1] == "refund"
    model = Model.open(Bundle.open(candidate.bundle), providers="cpu")
    parts = model.outputs([example.text for example in corrections(60)]).parts
    assert parts is not None
    assert (parts.linear.argmax(1) == 4).mean() > 0.9
    holdout = load_dataset("intent", home.parent / "own.csv").holdout
    verdict = gate_classifier(home / "bundles" / "intent" / "1", candidate.bundle, holdout, [], ANY_SPEED)
    assert {"early answers", "parity"} <= {check.name for check in verdict.reasons}
    ids = [row.ids for row in model.encoder.encode([example.text for example in holdout])]
    early = np.array([model.early(row) is not None for row in ids])
    assert verdict.candidate["holdout"].parts is not None
    assert (verdict.candidate["holdout"].parts.early == early).all()


def test_a_version_that_continues_from_one_of_an_older_flywheel_says_that_it_has_no_linear_reader(home: Path) -> None:
    work = shutil.copytree(home, home.parent / "older")
    shutil.rmtree(work / "checkpoints" / "intent" / "1" / LINEAR)
    job, family = TrainingJob("intent", parent="1", samples=corrections(60)), family_of("intent")
    recipe = family.recipe(job, work)
    (note,) = family.notes(job, work, family.load(job, work, recipe), recipe)
    assert "version 1, from which it continues, has none" in note
    assert not family.notes(job, home, family.load(job, home, recipe), recipe)
