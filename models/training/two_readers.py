"""Train a classifier's two readers: the encoder, the linear reader, and what joins them.

Both are trained without some validation texts first, on which the blend and the early answers are fitted: on its
training texts each reader is far too sure. Then both learn the validation texts too: the encoder by a short training
that continues, as on corrections, the linear reader from nothing, which takes seconds. The factors and thresholds stay.

A version that continues from another takes over its parent's factors and settings: its encoder has seen all texts.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from export.bundle import EarlyAnswers, LinearRecord
from export.checkpoint import linear_record, load_checkpoint, save_linear, text_encoder
from export.linear import Floats
from export.pooling import pooled
from models.data.dataset import Example
from models.data.split import text_key
from models.training.blend import Truth, Validation, choose_early, fit_blend, label_thresholds
from models.training.config import CONTINUED, Recipe
from models.training.linear_reader import (
    MAX_LABELS,
    LinearSettings,
    choose_settings,
    fit_linear_reader,
    out_of_fold,
)
from models.training.progress import ReportStage
from models.training.training_set import TrainingSet

# Validation texts: enough to know a share of one percent, few enough for a short training to learn them.
_SHARE, _MIN_TEXTS, _MAX_TEXTS = 0.1, 400, 1000
_MAX_SHARE = 0.25
MIN_VALIDATION = 200
"""with fewer validation texts, factors and thresholds would be chance, and the encoder answers alone"""
_ABSORB = replace(CONTINUED, replay=0, repeats=2)

Losses = list[tuple[int, float]]
Finetune = Callable[[TrainingSet, Recipe, Path, ReportStage, Path | None], Losses]


def train_two_readers(data: TrainingSet, recipe: Recipe, out: Path, report: ReportStage, finetune: Finetune) -> Losses:
    """Train on the set's examples, and write the checkpoint with its linear reader to `out`. The encoder's losses.

    With too few texts, or more labels than a linear reader is trained for, the encoder is trained alone.
    """
    rest, held = split_validation(data.examples, recipe.seed)
    if len(held) < MIN_VALIDATION or len(data.labels) > MAX_LABELS:
        return finetune(data, recipe, out, report, None)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="first-") as scratch:
        first = Path(scratch) / "checkpoint"
        losses = finetune(replace(data, examples=rest), recipe, first, report, None)
        report("linear reader", 0, 0)
        tokens = _Tokens(first, recipe.max_length, data.labels)
        (rows, truth), (unread, true) = tokens.of(rest), tokens.of(held)
        settings = choose_settings(rows, truth, unread, true, len(data.labels))
        reader = fit_linear_reader(rows, truth, len(data.labels), settings)
        readings = [reader.read(ids) for ids in unread]
        validation = Validation(
            encoder=encoder_logits(first, unread),
            linear=np.stack([reading.logits for reading in readings]),
            known=np.array([reading.known for reading in readings]),
            truth=true,
        )
        blend = fit_blend(validation)
        absorbing = replace(_ABSORB, base=recipe.base, max_length=recipe.max_length, seed=recipe.seed,
                            threads=recipe.threads, batch=recipe.batch, max_steps=recipe.max_steps)  # fmt: skip
        mixed = TrainingSet.of_corrections(data.corpus, "", data.labels, held, (), absorbing)
        both = replace(data, examples=mixed.examples, excess=mixed.excess)
        more = finetune(both, absorbing, out, _renamed(report), first)
    rows, truth = tokens.of(data.known_examples)
    unseen, known = out_of_fold(rows, truth, len(data.labels), settings)
    early = choose_early(validation, blend, unseen, known, truth[: len(known)], data.labels)
    record = LinearRecord(
        max_ngram=settings.max_ngram,
        sublinear=settings.sublinear,
        regularization=settings.regularization,
        blend=blend,
        early=early,
    )
    save_linear(out, fit_linear_reader(rows, truth, len(data.labels), settings), record)
    last = losses[-1][0] if losses else 0
    return [*losses, *((last + step, loss) for step, loss in more)]


def continue_linear_reader(data: TrainingSet, recipe: Recipe, start: Path, out: Path, report: ReportStage) -> None:
    """Beside the checkpoint `out`, which continues from `start`, write a linear reader of all that the set has.

    It takes over the settings, the blend and the threshold of `start`; without a reader there, none is written. The
    labels' own thresholds are new, since corrections may bring labels that old ones look like.
    """
    if (record := linear_record(start)) is None or len(data.labels) > MAX_LABELS:
        return
    report("linear reader", 0, 0)
    tokens = _Tokens(out, recipe.max_length, data.labels)
    rows, truth = tokens.of(data.known_examples)
    settings = LinearSettings(record.max_ngram, record.sublinear, record.regularization)
    early = record.early
    if early is not None:
        unseen, known = out_of_fold(rows, truth, len(data.labels), settings)
        own = label_thresholds(record.blend, unseen, known, truth[: len(known)])
        higher = {label: float(t) for label, t in zip(data.labels, own, strict=True) if t > early.above}
        early = EarlyAnswers(above=early.above, min_known=early.min_known, label_above=higher)
    reader = fit_linear_reader(rows, truth, len(data.labels), settings)
    save_linear(out, reader, record.model_copy(update={"early": early}))


def split_validation(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(examples to train on, validation examples): of each label the same share, all rows of a text on one side.

    A label keeps all its texts where the share is less than one of them.
    """
    wanted = min(max(_SHARE * len(examples), _MIN_TEXTS), _MAX_TEXTS, _MAX_SHARE * len(examples))
    share = wanted / max(len(examples), 1)
    keys_of: dict[str, list[int]] = defaultdict(list)
    keys = [text_key(example.text) for example in examples]
    for example, key in zip(examples, keys, strict=True):
        keys_of[example.label].append(key)
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    for label in sorted(keys_of):
        distinct = sorted(set(keys_of[label]))
        held.update(distinct[i] for i in rng.permutation(len(distinct))[: int(share * len(distinct))])
    sides: tuple[list[Example], list[Example]] = ([], [])
    for example, key in zip(examples, keys, strict=True):
        sides[key in held].append(example)
    return sides


def encoder_logits(checkpoint: Path, rows: Sequence[Sequence[int]]) -> Floats:
    """The logits of a checkpoint, in PyTorch, for texts given by their token ids: (texts, labels)."""
    model, _ = load_checkpoint(checkpoint, normalize=False)
    with torch.no_grad():
        logits: Floats = model.head(pooled(model.encoder, rows)).numpy()
    return logits


class _Tokens:
    """Examples to token ids, as the server will have them, and to numbers of labels."""

    def __init__(self, checkpoint: Path, max_length: int, labels: Sequence[str]):
        _, tokenizer = load_checkpoint(checkpoint, normalize=False)
        self._encoder = text_encoder(tokenizer, max_length)
        self._number = {label: i for i, label in enumerate(labels)}

    def of(self, examples: Sequence[Example]) -> tuple[list[tuple[int, ...]], Truth]:
        rows = [encoded.ids for encoded in self._encoder.encode([example.text for example in examples])]
        return rows, np.array([self._number[example.label] for example in examples], np.intp)


def _renamed(report: ReportStage) -> ReportStage:
    """`report` for the second training, so that its bar does not look like the first one's starting again."""
    return lambda stage, done, total: report("finishing" if stage == "training" else stage, done, total)
