"""Classifiers: fine-tuned on labelled texts, and continued on corrections mixed with replayed texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from export.bundle import Bundle, Lineage, LinearRecord
from export.heads import softmax
from export.tokenizer import Ids
from models.curation.types import Rules
from models.data.dataset import DatasetError, Example, load_checked, load_corpus, load_dataset
from models.data.token_checks import token_findings
from models.feedback.types import Sample
from models.home import bundle_folder, checkpoint_folder
from models.tasks.base import ClassifierTask, get_task
from models.tasks.confidence import bounds_of
from models.tasks.thresholds import Thresholds
from models.training.candidate import TrainingJob
from models.training.config import CONTINUED, Recipe
from models.training.families.base import Champion, Evaluated, Losses, ModelFamily
from models.training.progress import ReportStage
from models.training.training_set import TrainingSet

if TYPE_CHECKING:
    from export.linear import LinearReader
    from export.model import Model
    from models.curation.pipeline import Curated
    from models.evaluation.gate import GateResult


class ClassifierFamily(ModelFamily[TrainingSet]):
    """Corrections are labelled texts: curated against the corpus, learned with replay, judged on its holdout."""

    kind = "classifier"

    def recipe(self, job: TrainingJob, home: Path) -> Recipe:
        if job.parent is None:
            recipe = super().recipe(job, home)
            return replace(recipe, min_steps=0) if "epochs" in dict(job.recipe) else recipe  # what was asked for
        manifest = _parent(job, home).manifest
        continued = replace(CONTINUED, base=manifest.base_model, max_length=manifest.max_length)
        return replace(continued, **dict(job.recipe))

    def load(self, job: TrainingJob, home: Path, recipe: Recipe) -> TrainingSet:
        if job.items or job.users:
            raise DatasetError(f"{job.task} learns labels of texts: --items and --users are for recommendation.")
        if job.parent is None:
            corpus, report = load_checked(job.task, job.data)
            found = token_findings([example.text for example in corpus.train], recipe.base, recipe.max_length)
            return TrainingSet.of_corpus(corpus, report.with_findings(found))
        manifest = _parent(job, home).manifest
        corpus = load_corpus(home, job.task, manifest.data)
        return TrainingSet.of_corrections(corpus, job.parent, manifest.labels, job.samples, job.learned, recipe)

    def load_kept(self, job: TrainingJob, home: Path, lineage: Lineage) -> TrainingSet:
        return TrainingSet.of_corpus(load_corpus(home, job.task, lineage))

    def load_for_export(self, job: TrainingJob, home: Path, checkpoint: Path, kept: Lineage | None) -> TrainingSet:
        from export.checkpoint import checkpoint_labels

        labels = checkpoint_labels(checkpoint)
        lineage = kept if job.data is None else None
        corpus = load_corpus(home, job.task, lineage) if lineage else load_dataset(job.task, job.data)
        if unknown := set(corpus.labels) - set(labels):
            raise DatasetError(
                f"{checkpoint} does not know the label {min(unknown)!r} of {corpus.name}; "
                "give what it was trained on: --data FILE"
            )
        return replace(TrainingSet.of_corpus(corpus), labels=labels)

    def notes(self, job: TrainingJob, home: Path, data: TrainingSet, recipe: Recipe) -> Sequence[str]:
        from models.training.two_readers import why_no_reader, why_none_continued

        if job.parent is None:
            why = why_no_reader(data, recipe.seed)
        else:
            why = why_none_continued(checkpoint_folder(home, job.task, job.parent), job.parent, len(data.labels))
        return [why] if why else []

    def train(
        self, job: TrainingJob, home: Path, data: TrainingSet, recipe: Recipe, out: Path, report: ReportStage
    ) -> Losses:
        from models.training.finetune import finetune_classifier
        from models.training.two_readers import continue_linear_reader, train_two_readers

        start = checkpoint_folder(home, job.task, job.parent) if job.parent else None
        finetune = finetune_classifier
        if job.workers > 1:
            from models.training.distributed import finetune_on_workers

            finetune = partial(finetune_on_workers, job.workers)
        if start is None:
            return train_two_readers(data, recipe, out, report, finetune)
        losses = finetune(data, recipe, out, report, start)
        continue_linear_reader(data, recipe, start, out, report)
        return losses

    def fit_without_encoder(
        self, data: TrainingSet, rows: Sequence[Ids], recipe: Recipe
    ) -> tuple[LinearReader, LinearRecord]:
        from models.training.blend import fit_alone
        from models.training.confidence import choose_confidence
        from models.training.linear_reader import LinearSettings, fit_linear_reader, out_of_fold

        number = {label: i for i, label in enumerate(data.labels)}
        truth = np.array([number[example.label] for example in data.examples], np.intp)
        settings = LinearSettings(max_ngram=2)
        unseen, _ = out_of_fold(rows, truth, len(data.labels), settings)
        blend = fit_alone(unseen, truth)
        confidence = choose_confidence(softmax(blend.linear_alone * unseen), truth, recipe)
        record = LinearRecord(**asdict(settings), blend=blend, confidence=confidence)
        return fit_linear_reader(rows, truth, len(data.labels), settings), record

    def evaluate(self, task: str, data: TrainingSet, model: Model, checkpoint: Path | None) -> Evaluated:
        from models.evaluation.metrics import classifier_metrics, confidence_metrics, reader_metrics

        task_class = get_task(task)
        assert issubclass(task_class, ClassifierTask)
        training, held_out = data.corpus.train, data.corpus.holdout
        truth = [example.label for example in held_out]
        outputs = model.outputs([example.text for example in held_out])
        probabilities = softmax(outputs.final)
        predicted = [data.labels[i] for i in probabilities.argmax(1)]
        # From the corpus alone: assets are shown to all users, and a correction belongs to its author.
        texts, labels = [example.text for example in training], [example.label for example in training]
        assets = task_class.assets(model, texts, labels)
        metrics = classifier_metrics(data.labels, truth, probabilities)
        right = np.array([p == t for p, t in zip(predicted, truth, strict=True)])
        metrics |= confidence_metrics(bounds_of(model.bundle.manifest), probabilities, right)
        if outputs.parts is not None:
            metrics |= reader_metrics(data.labels, truth, outputs.parts)
        return Evaluated(metrics, assets, confusion=(data.labels, truth, predicted))

    def replayed(self, champion: Champion, max_samples: int) -> list[Sample]:
        return champion.learned()

    def curate(
        self,
        champion: Champion,
        samples: Sequence[Sample],
        rules: Rules,
        *,
        new_labels: bool,
    ) -> Curated:
        from models.curation.embeddings import base_encoder
        from models.curation.pipeline import Context, curate
        from models.curation.second_pass import redaction

        manifest = champion.bundle.manifest
        corpus = load_corpus(champion.home, champion.task, manifest.data)
        context = Context(
            labels=frozenset(manifest.labels),
            training=[*corpus.train, *_examples(champion.learned())],
            holdout=[example.text for example in corpus.holdout],
            embed=base_encoder(max_length=manifest.max_length),
            redact=redaction(rules),
            new_labels=new_labels,
        )
        return curate(samples, context, rules)

    def continued(
        self,
        champion: Champion,
        learn: Sequence[Sample],
        replayed: Sequence[Sample],
        recipe: Sequence[tuple[str, Any]],
        workers: int,
    ) -> TrainingJob:
        return TrainingJob(
            champion.task,
            recipe=tuple(recipe),
            parent=champion.version,
            precision=champion.bundle.manifest.precision,
            samples=_examples(learn),
            learned=_examples(replayed),
            workers=workers,
        )

    def gate(
        self,
        champion: Champion,
        candidate: Path,
        learned: Sequence[Sample],
        replayed: Sequence[Sample],
        held_out: Sequence[Sample],
        thresholds: Thresholds,
    ) -> GateResult:
        from models.evaluation.gate import gate_classifier

        bundle = champion.bundle
        holdout = load_corpus(champion.home, champion.task, bundle.manifest.data).holdout
        return gate_classifier(bundle.path, candidate, holdout, held_out, thresholds)


def _parent(job: TrainingJob, home: Path) -> Bundle:
    return Bundle.open(bundle_folder(home, job.task, str(job.parent)))


def _examples(samples: Sequence[Sample]) -> tuple[Example, ...]:
    return tuple(Example(sample.text, sample.label) for sample in samples)
