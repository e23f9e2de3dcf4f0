"""A version learns from corrections without losing what it knew, and measures itself on what it was measured on."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from export.bundle import Bundle
from export.session import OnnxSession
from models.data.dataset import DatasetError, Example, load_corpus, load_dataset, save_corpus
from models.home import corpus_file
from models.releases.release import read_release
from models.training.candidate import Candidate, Job
from models.training.pipeline import build_candidate, register_candidate
from models.training.replay import mix
from tests.own_corpus import CORRECTIONS, OWN, own_data

if TYPE_CHECKING:
    from models.training.config import Recipe

PLANTED = Example("the risotto of Xanthippe Quillfeather burned", "cooking")


def quiet(stage: str, done: int, total: int) -> None:
    pass


# Which old texts are replayed


@pytest.fixture
def recipe() -> Recipe:
    from models.training.config import Recipe

    return Recipe(replay=5, repeats=2)


def examples(label: str, count: int) -> list[Example]:
    return [Example(f"{label} number {i}", label) for i in range(count)]


def test_all_that_is_new_is_there_and_the_old_labels_in_equal_numbers(recipe: Recipe) -> None:
    new, old = examples("new", 3), [*examples("large", 90), *examples("small", 20), *examples("tiny", 2)]
    mixed = mix(new, old, recipe)
    assert Counter(e.label for e in mixed) == {"new": 6, "large": 5, "small": 5, "tiny": 2}
    assert len(set(mixed)) == 3 + 5 + 5 + 2
    assert set(new) < set(mixed) <= {*new, *old}


def test_there_are_two_old_texts_for_each_new_one(recipe: Recipe) -> None:
    mixed = mix(examples("new", 30), [*examples("one", 90), *examples("two", 90)], recipe)
    assert Counter(e.label for e in mixed) == {"new": 60, "one": 60, "two": 60}


def test_the_choice_is_seeded(recipe: Recipe) -> None:
    new, old = examples("new", 3), examples("old", 50)
    assert mix(new, old, recipe) == mix(new, old, recipe) != mix(new, old, replace(recipe, seed=8))


def test_a_text_that_was_corrected_is_not_replayed_with_its_old_label(recipe: Recipe) -> None:
    mixed = mix([Example("  Hi THERE", "greet")], [Example("hi there", "leave"), Example("bye", "leave")], recipe)
    assert set(mixed) == {("  Hi THERE", "greet"), ("bye", "leave")}


# The corpus is kept


def test_a_kept_corpus_is_the_one_that_was_read(tmp_path: Path) -> None:
    odd = [Example('two\nlines, "quoted" — ☂\u2028', "a"), Example("b", "b")]
    dataset = load_dataset("intent", own_data(tmp_path))
    dataset = dataset._replace(train=[*dataset.train, *odd])
    save_corpus(dataset, tmp_path / "kept.jsonl")
    kept = load_dataset("intent", tmp_path / "kept.jsonl")
    assert (kept.train, kept.holdout) == (dataset.train, dataset.holdout)


def test_a_home_without_corpora_falls_back_to_the_seed(tmp_path: Path) -> None:
    seed = load_dataset("intent")
    assert load_corpus(tmp_path, "intent", seed.lineage()) == seed


def test_a_corpus_that_is_nowhere_is_named_with_the_remedy(tmp_path: Path) -> None:
    lineage = load_dataset("intent", own_data(tmp_path)).lineage()
    with pytest.raises(
        DatasetError, match=r"'own' that intent was trained on is not in .*flywheel train intent --data"
    ):
        load_corpus(tmp_path, "intent", lineage)


def test_a_corpus_that_was_changed_is_refused(tmp_path: Path) -> None:
    dataset = load_dataset("intent", own_data(tmp_path))
    file = corpus_file(tmp_path, "intent", dataset.fingerprint)
    file.parent.mkdir(parents=True)
    save_corpus(dataset._replace(train=dataset.train[1:]), file)
    with pytest.raises(DatasetError, match="is damaged"):
        load_corpus(tmp_path, "intent", dataset.lineage())


# Continuing from a version


@pytest.fixture(scope="module")
def candidate(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    home = tmp_path_factory.mktemp("candidate") / "home"
    shutil.copytree(parent, home)
    job = Job("intent", parent="1", samples=(*CORRECTIONS[:-4], PLANTED), recipe=(("epochs", 4),))
    return build_candidate(job, home, quiet)


def predicted(bundle: Path, texts: list[str]) -> list[str]:
    opened = Bundle.open(bundle)
    output = OnnxSession(opened, providers="cpu").predict(texts)
    return [opened.manifest.labels[i] for i in output.argmax(1)]


def test_training_keeps_its_corpus(parent: Path) -> None:
    dataset = load_dataset("intent", parent / "own.csv")
    assert [file.name for file in (parent / "corpora" / "intent").iterdir()] == [f"{dataset.fingerprint}.jsonl"]
    assert load_corpus(parent, "intent", Bundle.open(parent / "bundles/intent/1").manifest.data) == dataset


def test_the_new_label_is_learned_and_the_old_ones_stay(candidate: Candidate) -> None:
    assert Bundle.open(candidate.bundle).manifest.labels == ("astronomy", "cooking", "gardening")
    new = [*CORRECTIONS[-4:], Example("how long does the stew need?", "cooking")]
    assert predicted(candidate.bundle, [e.text for e in new]) == ["cooking"] * len(new)
    old = [text for text, _ in OWN]
    assert sum(p == label for p, (_, label) in zip(predicted(candidate.bundle, old), OWN, strict=True)) >= 58


def test_the_holdout_is_the_parent_s_and_the_lineage_says_from_what(candidate: Candidate, parent: Path) -> None:
    dataset = load_dataset("intent", parent / "own.csv")
    assert candidate.confusion
    assert candidate.confusion[1] == [example.label for example in dataset.holdout]
    data = Bundle.open(candidate.bundle).manifest.data
    assert data == candidate.lineage
    assert dataset.lineage().model_dump().items() <= data.model_dump().items()
    assert (data.parent, data.samples, data.learned_samples) == ("1", 27, 0)
    assert data.replayed == len(dataset.train)


def test_no_correction_is_in_what_is_kept_or_shown(candidate: Candidate) -> None:
    questions = Bundle.open(candidate.bundle).asset("known_questions")["texts"]
    assert questions
    assert set(questions) <= {text for text, _ in OWN}
    for file in candidate.bundle.parent.rglob("*"):
        assert file.is_dir() or b"Quillfeather" not in file.read_bytes()


def test_a_training_set_says_which_labels_it_shows_more_often_than_the_data_has_them(recipe: Recipe) -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")
    corpus = corpus._replace(train=[*examples("few", 4), *examples("many", 50)])
    new = [*examples("new", 6), Example("a text of few", "few")]
    training_set = TrainingSet.of_corrections(corpus, "1", ["few", "many", "unseen"], new, (), recipe)
    assert training_set.labels == ["few", "many", "new", "unseen"]
    assert training_set.excess == {"new": 2, "few": (2 * 1 + 4) / 5, "many": 14 / 50}


def test_the_order_of_the_corrections_is_not_part_of_their_fingerprint(recipe: Recipe) -> None:
    from models.training.training_set import TrainingSet

    corpus = load_dataset("sentiment")

    def lineage(samples: tuple[Example, ...]) -> object:
        return TrainingSet.of_corrections(corpus, "1", corpus.labels, samples, (), recipe).lineage.samples_fingerprint

    assert lineage(CORRECTIONS) == lineage(CORRECTIONS[::-1]) != lineage(CORRECTIONS[1:])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own use of SQLAlchemy
def test_a_third_generation_replays_what_the_second_learned(parent: Path, candidate: Candidate, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(parent, home)
    folder = home / "work" / "second"
    shutil.copytree(candidate.bundle.parent, folder, dirs_exist_ok=True)
    assert register_candidate(replace(candidate, bundle=folder / candidate.bundle.name), home) == "2"
    assert read_release(home, "intent").champion == "1"
    sports = tuple(Example(f"who won the {sport} match yesterday", "sports") for sport in ("tennis", "chess", "rugby"))
    job = Job("intent", parent="2", samples=sports, learned=CORRECTIONS, recipe=(("epochs", 2),))
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
    model, tokenizer = load_checkpoint(tmp_path / "out", normalize=False)
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
    model, tokenizer = load_checkpoint(start, normalize=False)
    inputs = pad_rows(tokenizer([text for text, _ in OWN[:8]])["input_ids"])
    for method in ("full", "lora"):
        grown, _ = resume(Recipe(method=method), start, ["aquaria", "astronomy", "cooking", "gardening"])
        with torch.no_grad():
            before, after = model(*inputs), grown.eval()(*inputs)
        torch.testing.assert_close(after[:, [1, 3]], before)
        assert (after[:, [0, 2]] == 0).all()


def test_a_new_label_is_found_on_the_encoder_as_it_is_and_the_old_rows_stay() -> None:
    import torch

    from models.training.linear_probe import probe

    draw = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(3, 16)
    truth = torch.arange(3).repeat(40)
    features = centres[truth] + torch.randn(120, 16, generator=draw)
    head = torch.nn.Linear(16, 3)
    with torch.no_grad():  # knows the first and the last, and was never shown the one between them
        head.weight.copy_(centres)
        head.weight[1] = 0
        head.bias.copy_(torch.tensor([-8.0, 0.0, -8.0]))
    before = head.weight[[0, 2]].clone()
    probe(head, features, truth, [1], torch.zeros(3), 0.0)
    assert (head(features).argmax(1) == truth).float().mean() > 0.98
    assert torch.equal(head.weight[[0, 2]], before)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it of transformers
@pytest.mark.parametrize("method", ["full", "lora"])
def test_blending_all_the_way_back_gives_the_old_answers_and_keeps_new_labels(method: str, parent: Path) -> None:
    import torch

    from export.checkpoint import load_checkpoint
    from export.pooling import pad_rows
    from models.training.config import Recipe
    from models.training.finetune import interpolate_weights, merge_adapters, resume

    start, labels = parent / "checkpoints" / "intent" / "1", ["aquaria", "astronomy", "cooking", "gardening"]
    model, tokenizer = load_checkpoint(start, normalize=False)
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
        build_candidate(Job("intent", parent="1", samples=CORRECTIONS, recipe=(("epochs", 1),)), home, interrupt)
    assert sorted(home.rglob("*")) == before


def test_a_ranker_does_not_continue_with_labels(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="continues with interactions, not with labels"):
        build_candidate(Job("recommendation", parent="1", samples=CORRECTIONS), tmp_path, quiet)


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
        Job("intent", **arguments)  # type: ignore[arg-type]
