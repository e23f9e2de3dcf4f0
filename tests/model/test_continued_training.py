"""A version that continues from another: learns from corrections without losing what it knew."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from export.bundle import Bundle
from export.session import OnnxSession
from models.data.dataset import Example, load_corpus, load_dataset
from models.releases.release import read_release
from models.training.candidate import TrainedCandidate, TrainingJob
from models.training.pipeline import build_candidate, register_candidate
from tests.helpers.own_corpus import CORRECTIONS, OWN

PLANTED = Example("the risotto of Xanthippe Quillfeather burned", "cooking")


def quiet(stage: str, done: int, total: int) -> None:
    pass


@pytest.fixture(scope="module")
def candidate(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedCandidate:
    home = tmp_path_factory.mktemp("candidate") / "home"
    shutil.copytree(parent, home)
    job = TrainingJob("intent", parent="1", samples=(*CORRECTIONS[:-4], PLANTED), recipe=(("epochs", 4),))
    return build_candidate(job, home, quiet)


def predicted(bundle: Path, texts: list[str]) -> list[str]:
    opened = Bundle.open(bundle)
    output = OnnxSession(opened, providers="cpu").predict(texts)
    return [opened.manifest.labels[i] for i in output.argmax(1)]


def test_training_keeps_its_corpus(parent: Path) -> None:
    dataset = load_dataset("intent", parent / "own.csv")
    assert [file.name for file in (parent / "corpora" / "intent").iterdir()] == [f"{dataset.fingerprint}.jsonl"]
    assert load_corpus(parent, "intent", Bundle.open(parent / "bundles/intent/1").manifest.data) == dataset


def test_the_new_label_is_learned_and_the_old_ones_stay(candidate: TrainedCandidate) -> None:
    assert Bundle.open(candidate.bundle).manifest.labels == ("astronomy", "cooking", "gardening")
    new = [*CORRECTIONS[-4:], Example("how long does the stew need?", "cooking")]
    assert predicted(candidate.bundle, [e.text for e in new]) == ["cooking"] * len(new)
    old = [text for text, _ in OWN]
    assert sum(p == label for p, (_, label) in zip(predicted(candidate.bundle, old), OWN, strict=True)) >= 58


def test_the_holdout_is_the_parent_s_and_the_lineage_says_from_what(candidate: TrainedCandidate, parent: Path) -> None:
    dataset = load_dataset("intent", parent / "own.csv")
    assert candidate.confusion
    assert candidate.confusion[1] == [example.label for example in dataset.holdout]
    data = Bundle.open(candidate.bundle).manifest.data
    assert data == candidate.lineage
    assert dataset.lineage().model_dump().items() <= data.model_dump().items()
    assert (data.parent, data.samples, data.learned_samples) == ("1", 27, 0)
    assert data.replayed == len(dataset.train)


def test_no_correction_is_in_what_is_kept_or_shown(candidate: TrainedCandidate) -> None:
    questions = Bundle.open(candidate.bundle).asset("known_questions")["texts"]
    assert questions
    assert set(questions) <= {text for text, _ in OWN}
    for file in candidate.bundle.parent.rglob("*"):
        assert file.is_dir() or b"Quillfeather" not in file.read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_a_third_generation_replays_what_the_second_learned(
    parent: Path, candidate: TrainedCandidate, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(parent, home)
    folder = home / "work" / "second"
    shutil.copytree(candidate.bundle.parent, folder, dirs_exist_ok=True)
    assert register_candidate(replace(candidate, bundle=folder / candidate.bundle.name), home) == "2"
    assert read_release(home, "intent").champion == "1"
    sports = tuple(Example(f"who won the {sport} match yesterday", "sports") for sport in ("tennis", "chess", "rugby"))
    job = TrainingJob("intent", parent="2", samples=sports, learned=CORRECTIONS, recipe=(("epochs", 2),))
    third = build_candidate(job, home, quiet)
    assert Bundle.open(third.bundle).manifest.labels == ("astronomy", "cooking", "gardening", "sports")
    assert (third.lineage.parent, third.lineage.samples, third.lineage.learned_samples) == ("2", 3, 30)
    cooking = [example.text for example in CORRECTIONS]
    assert predicted(third.bundle, cooking).count("cooking") >= 28


@pytest.fixture
def cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::ResourceWarning")  # Ray's
def test_two_workers_learn_together(parent: Path, tmp_path: Path, cluster: None) -> None:
    import torch

    from export.checkpoint import checkpoint_labels, load_checkpoint
    from export.pooling import pad_rows
    from models.training.config import CONTINUED
    from models.training.distributed import finetune_on_workers
    from models.training.training_set import TrainingSet

    steps = tmp_path / "steps"

    def report(stage: str, done: int, total: int) -> None:  # called in another process
        with steps.open("a") as file:
            file.write(f"{stage} {done} {total}\n")

    corpus, start = load_dataset("intent", parent / "own.csv"), parent / "checkpoints" / "intent" / "1"
    recipe = replace(CONTINUED, epochs=3, learning_rate=5e-4, blend=1.0)
    training_set = TrainingSet.of_corrections(corpus, "1", corpus.labels, CORRECTIONS, (), recipe)
    losses = finetune_on_workers(2, training_set, recipe, tmp_path / "out", report, start)
    told = [line.split() for line in steps.read_text().splitlines()]
    done, total = next((int(done), int(total)) for stage, done, total in reversed(told) if stage == "training")
    assert done == total == 3 * math.ceil(len(training_set.examples) / recipe.batch)  # each took half of every batch
    assert losses
    model, tokenizer = load_checkpoint(tmp_path / "out")
    with torch.no_grad():
        logits = model.eval()(*pad_rows(tokenizer([example.text for example in CORRECTIONS])["input_ids"]))
    labels = checkpoint_labels(tmp_path / "out")
    assert [labels[i] for i in logits.argmax(1)].count("cooking") >= 28
    assert not list(tmp_path.glob("ray-train-*"))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it of transformers
def test_old_logits_are_untouched_until_the_first_step(parent: Path) -> None:
    import torch

    from export.checkpoint import load_checkpoint
    from export.pooling import pad_rows
    from models.training.config import Recipe
    from models.training.finetune import resume

    start = parent / "checkpoints" / "intent" / "1"
    model, tokenizer = load_checkpoint(start)
    inputs = pad_rows(tokenizer([text for text, _ in OWN[:8]])["input_ids"])
    for method in ("full", "lora"):
        grown, _ = resume(Recipe(method=method), start, ["aquaria", "astronomy", "cooking", "gardening"])
        with torch.no_grad():
            before, after = model(*inputs), grown.eval()(*inputs)
        torch.testing.assert_close(after[:, [1, 3]], before)
        assert (after[:, [0, 2]] == 0).all()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it of transformers
@pytest.mark.parametrize("method", ["full", "lora"])
def test_blending_all_the_way_back_gives_the_old_answers_and_keeps_new_labels(method: str, parent: Path) -> None:
    import torch

    from export.checkpoint import load_checkpoint
    from export.pooling import pad_rows
    from models.training.config import Recipe
    from models.training.finetune import interpolate_weights, merge_adapters, resume

    start, labels = parent / "checkpoints" / "intent" / "1", ["aquaria", "astronomy", "cooking", "gardening"]
    model, tokenizer = load_checkpoint(start)
    inputs = pad_rows(tokenizer([text for text, _ in OWN[:8]])["input_ids"])
    moved, _ = resume(Recipe(method=method), start, labels)
    with torch.no_grad():
        for weights in moved.parameters():
            if weights.requires_grad:
                weights.add_(0.01 * torch.randn_like(weights))
        merge_adapters(moved)
        learned = moved.head.weight[[0, 2]].clone()
        trained = moved.eval()(*inputs)[:, [1, 3]]
        before = model.eval()(*inputs)
        assert not torch.allclose(trained, before, atol=1e-3)
        interpolate_weights(moved, labels, start, 0.0)
        torch.testing.assert_close(moved(*inputs)[:, [1, 3]], before)
        torch.testing.assert_close(moved.head.weight[[0, 2]], learned)


def test_a_start_must_be_a_classifier_whose_labels_all_stay(parent: Path, trained_home: Path) -> None:
    from export.errors import CheckpointError
    from models.training.config import Recipe
    from models.training.finetune import resume

    with pytest.raises(CheckpointError, match="knows the label 'gardening'"):
        resume(Recipe(), parent / "checkpoints" / "intent" / "1", ["astronomy", "cooking"])
    with pytest.raises(CheckpointError, match="is not a classifier's checkpoint"):
        resume(Recipe(), trained_home / "checkpoints" / "recommendation" / "1", ["a", "b"])


@pytest.mark.parametrize("stage", ["loading", "probing", "training", "exporting"])
def test_an_interrupted_training_leaves_nothing(stage: str, parent: Path, tmp_path: Path) -> None:
    def interrupt(now: str, done: int, total: int) -> None:
        if now == stage:
            raise KeyboardInterrupt

    home = tmp_path / "home"
    shutil.copytree(parent, home)
    before = sorted(home.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        build_candidate(
            TrainingJob("intent", parent="1", samples=CORRECTIONS, recipe=(("epochs", 1),)), home, interrupt
        )
    assert sorted(home.rglob("*")) == before
