"""Train a classifier's two readers: the encoder, the linear reader, and what joins them.

Both are trained without some validation texts first, on which the blend and the early answers are fitted: on its
training texts each reader is far too sure. Then both learn the validation texts too: the encoder reads all texts once
more, the linear reader is fitted anew, which takes seconds. The factors and thresholds stay.

A version that continues from another takes over its parent's factors and settings: its encoder has seen all texts.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from export.bundle import EarlyAnswers, LinearRecord
from export.checkpoint import linear_record, load_checkpoint, save_linear
from export.linear import Floats
from export.pooling import pooled
from models.data.dataset import Example
from models.data.split import text_key
from models.training.blend import MIN_KNOWN, Truth, Validation, choose_early, fit_blend, label_thresholds
from models.training.confidence import final_confidence
from models.training.config import Recipe
from models.training.linear_reader import (
    ALTERNATIVES,
    FOLDS,
    MAX_LABELS,
    MAX_TEXTS,
    LinearSettings,
    Step,
    choose_settings,
    draw_texts,
    fit_linear_reader,
    out_of_fold,
)
from models.training.progress import ReportStage
from models.training.tokens import TokenRows, tokenize
from models.training.training_set import TrainingSet

# Validation texts: enough to know a share of one percent, few enough that an encoder without them is much the same.
_SHARE, _MIN_TEXTS, _MAX_TEXTS = 0.15, 400, 1000
_MAX_SHARE = 0.25
MIN_VALIDATION = 200
"""with fewer validation texts, factors and thresholds would be chance, and the encoder answers alone"""
_LAST_RATE = 1 / 3  # of the recipe's, for the epoch over all texts: the rate at which a training continues
STAGE = "linear reader"

Losses = list[tuple[int, float]]
Finetune = Callable[[TrainingSet, Recipe, Path, ReportStage, Path | None], Losses]


def why_no_reader(data: TrainingSet, seed: int) -> str | None:
    """Why a training on the set gives no linear reader, as a sentence for the manifest; None when it gives one."""
    alone = "It has no linear reader, so its encoder reads every text"
    if len(data.labels) > MAX_LABELS:
        return f"{alone}: one is trained for at most {MAX_LABELS} labels, and these are {len(data.labels):,}."
    if (held := len(split_validation(data.examples, seed, data.corpus.validation)[1])) < MIN_VALIDATION:
        return (
            f"{alone}: {MIN_VALIDATION} different texts must be held back to fit one, and of these only {held} can be. "
            f"{round(MIN_VALIDATION / _MAX_SHARE)} texts are enough, if their labels have more than a few each."
        )
    return None


def why_none_continued(start: Path, parent: str, labels: int) -> str | None:
    """As `why_no_reader`, for a version of so many labels that continues from `parent`, whose checkpoint is `start`."""
    alone = "It has no linear reader, so its encoder reads every text"
    if linear_record(start) is None:
        return f"{alone}: version {parent}, from which it continues, has none. `flywheel train` trains both anew."
    if labels > MAX_LABELS:
        return f"{alone}: one is trained for at most {MAX_LABELS} labels, and these are {labels:,}."
    return None


def train_two_readers(data: TrainingSet, recipe: Recipe, out: Path, report: ReportStage, finetune: Finetune) -> Losses:
    """Train on the set's examples, and write the checkpoint with its linear reader to `out`. The encoder's losses.

    Where `why_no_reader` has a reason, the encoder is trained alone.
    """
    rest, held = split_validation(data.examples, recipe.seed, data.corpus.validation)
    if len(held) < MIN_VALIDATION or len(data.labels) > MAX_LABELS:
        return finetune(data, recipe, out, report, None)
    labels = len(data.labels)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix="first-") as scratch:
        first = Path(scratch) / "checkpoint"
        losses = finetune(replace(data, examples=rest), recipe, first, report, None)
        step = _steps(report, (len(ALTERNATIVES) + 2) * labels)
        (rows, truth), (unread, true) = (_tokens(first, recipe, data.labels, part) for part in (rest, held))
        settings = choose_settings(rows, truth, unread, true, labels, step)
        reader = fit_linear_reader(rows, truth, labels, settings, step)
        readings = [reader.read(ids) for ids in unread]
        validation = Validation(
            encoder=encoder_logits(first, unread),
            linear=np.stack([reading.logits for reading in readings]),
            known=np.array([reading.known for reading in readings]),
            truth=true,
        )
        blend = fit_blend(validation)
        last = replace(recipe, epochs=1, min_steps=0, learning_rate=_LAST_RATE * recipe.learning_rate)
        more = finetune(data, last, out, _renamed(report), first)
    step = _steps(report, (FOLDS + 1) * labels)
    rows, truth = _tokens(out, recipe, data.labels, data.known_examples)
    unseen, known = out_of_fold(rows, truth, labels, settings, step)
    early = choose_early(validation, blend, unseen, known, truth, data.labels, MIN_KNOWN[settings.max_ngram])
    confidence = final_confidence(validation, blend, early, data.labels, recipe)
    record = LinearRecord(**asdict(settings), blend=blend, early=early, confidence=confidence)
    save_linear(out, fit_linear_reader(rows, truth, labels, settings, step), record)
    steps = losses[-1][0] if losses else 0
    return [*losses, *((steps + step, loss) for step, loss in more)]


def continue_linear_reader(data: TrainingSet, recipe: Recipe, start: Path, out: Path, report: ReportStage) -> None:
    """Beside the checkpoint `out`, which continues from `start`, write a linear reader of all that the set has.

    It takes over the settings, the blend, the threshold and the bounds of confidence of `start`; without a reader
    there, none is written. The labels' own thresholds are new, since corrections may bring labels that old ones look
    like.
    """
    if (record := linear_record(start)) is None or len(data.labels) > MAX_LABELS:
        return
    labels, early = len(data.labels), record.early
    step = _steps(report, (FOLDS * (early is not None) + 1) * labels)
    rows, truth = _tokens(out, recipe, data.labels, data.known_examples)
    settings = LinearSettings(record.max_ngram, record.sublinear, record.regularization)
    if early is not None:
        unseen, known = out_of_fold(rows, truth, labels, settings, step)
        own = label_thresholds(record.blend, unseen, known, truth, early.min_known)
        higher = {label: float(t) for label, t in zip(data.labels, own, strict=True) if t > early.above}
        early = EarlyAnswers(above=early.above, min_known=early.min_known, label_above=higher)
    reader = fit_linear_reader(rows, truth, labels, settings, step)
    save_linear(out, reader, record.model_copy(update={"early": early}))


def split_validation(
    examples: Sequence[Example], seed: int, given: Set[int] = frozenset()
) -> tuple[list[Example], list[Example]]:
    """(examples to train on, validation examples): of each label the same share, each text on one side.

    If `given`, keys of texts that the corpus names as its validation texts, are enough, those are taken, as they are.
    Where the share of a label is a fraction of a text, chance decides; a label keeps at least one. Shares are of
    different texts; what is written several times under one label is one validation example.
    """
    keys = [text_key(example.text) for example in examples]
    if len(found := given & set(keys)) >= MIN_VALIDATION:
        return _parted(examples, keys, found)
    keys_of: dict[str, set[int]] = defaultdict(set)
    for example, key in zip(examples, keys, strict=True):
        keys_of[example.label].add(key)
    texts = sum(map(len, keys_of.values()))
    share = min(max(_SHARE * texts, _MIN_TEXTS), _MAX_TEXTS, _MAX_SHARE * texts) / max(texts, 1)
    rng = np.random.default_rng(seed)
    held: set[int] = set()
    for label in sorted(keys_of):
        distinct = sorted(keys_of[label])
        count = min(int(share * len(distinct) + rng.random()), len(distinct) - 1)
        held.update(distinct[i] for i in rng.permutation(len(distinct))[:count])
    return _parted(examples, keys, held)


def _parted(examples: Sequence[Example], keys: Sequence[int], held: Set[int]) -> tuple[list[Example], list[Example]]:
    rest = [example for example, key in zip(examples, keys, strict=True) if key not in held]
    once = {(key, e.label): e for e, key in zip(examples, keys, strict=True) if key in held}
    return rest, [*once.values()]


def encoder_logits(checkpoint: Path, rows: Sequence[Sequence[int]]) -> Floats:
    """The logits of a checkpoint, in PyTorch, for texts given by their token ids: (texts, labels)."""
    model, _ = load_checkpoint(checkpoint)
    with torch.no_grad():
        logits: Floats = model.head(pooled(model.encoder, rows)).numpy()
    return logits


def _tokens(
    checkpoint: Path, recipe: Recipe, labels: Sequence[str], examples: Sequence[Example]
) -> tuple[TokenRows, Truth]:
    """Examples to token ids, as the server will have them, and to numbers of labels; of very many, some are drawn."""
    number = {label: i for i, label in enumerate(labels)}
    truth = np.array([number[example.label] for example in examples], np.intp)
    drawn = draw_texts(truth, MAX_TEXTS)
    _, tokenizer = load_checkpoint(checkpoint)
    return tokenize(tokenizer, [examples[i].text for i in drawn.tolist()], recipe.max_length), truth[drawn]


def _steps(report: ReportStage, total: int) -> Step:
    """Reports the stage, and one more step of it at each call."""
    done = -1

    def step() -> None:
        nonlocal done
        done += 1
        report(STAGE, done, total)

    step()
    return step


def _renamed(report: ReportStage) -> ReportStage:
    """`report` for the second training, so that its bar does not look like the first one's starting again."""
    return lambda stage, done, total: report("finishing" if stage == "training" else stage, done, total)
