"""The gate report, as a page and as JSON: the decision, its checks, and the examples that changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

from models.evaluation.confusion import Confusion
from models.evaluation.evaluate import Evaluation
from models.evaluation.gate import HOLDOUT, GateResult
from models.evaluation.metrics import CONFIDENCE_BINS, classifier_metrics, confidence_bins, reader_metrics

PAGE, DATA = "verdict.html", "verdict.json"
_TEMPLATE = "report.html.j2"
_MAX_EXAMPLES = 100  # of wins and of losses each
_MAX_TEXT = 300
_MAX_CONFUSIONS = 12
_NAMES_OF_READERS = {
    "encoder.accuracy": "encoder alone, accuracy",
    "encoder.macro_f1": "encoder alone, macro f1",
    "linear.accuracy": "linear reader alone, accuracy",
    "linear.macro_f1": "linear reader alone, macro f1",
    "early.share": "answered early, by the linear reader",
    "early.accuracy": "early answers, accuracy",
    "early.agreement": "early answers that are the blend's",
}
_MIN_IN_BIN = 5  # examples; with fewer, a point of the calibration plot is noise


class ChangedExample(NamedTuple):
    """An example that only one of the two has right: their predictions with confidence (0 to 1)."""

    shown_as: str
    truth: str
    champion: str
    champion_score: float
    candidate: str
    candidate_score: float


class LabelChange(NamedTuple):
    """One label's recall (0 to 1) before and after."""

    label: str
    examples: int
    before: float
    after: float

    @property
    def points(self) -> float:
        return 100 * (self.after - self.before)


class SetChange(NamedTuple):
    """Champion and candidate compared on one set. Metrics are name -> (champion's, candidate's), each from 0 to 1.

    `readers` are the metrics of the encoder, the linear reader and its early answers; None for a model without.
    """

    name: str
    examples: int
    metrics: dict[str, tuple[float, float]]
    labels: list[LabelChange]
    won: list[ChangedExample]
    lost: list[ChangedExample]
    readers: dict[str, tuple[float | None, float | None]]


def write_report(result: GateResult, folder: Path, *, title: str, facts: Mapping[str, str] | None = None) -> Path:
    """Write `verdict.html` and `verdict.json` into `folder`. The page's path.

    `title` and `facts` (task, versions, data) head the page. The page is one file that loads nothing, and every text
    in it is escaped, since it is untrusted. It has holdout texts; feedback only by id.
    """
    facts = dict(facts or {})
    changes = [
        set_change(name, champion, result.candidate[name])
        for name, champion in result.champion.items()
        if champion.truth
    ]
    folder.mkdir(parents=True, exist_ok=True)
    data = {
        "title": title,
        "accepted": result.accepted,
        "sentence": result.sentence,
        "facts": facts,
        "checks": [asdict(check) for check in result.reasons],
        "sets": [{**c._asdict(), **{k: [r._asdict() for r in getattr(c, k)] for k in _LISTS}} for c in changes],
    }
    (folder / DATA).write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY))
    held_out = result.candidate.get(HOLDOUT)
    page = (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            title=title,
            facts=facts,
            result=result,
            changes=changes,
            confusion=_confusion(result.champion[HOLDOUT], held_out) if held_out else None,
            calibration=_calibration(result.champion[HOLDOUT], held_out) if held_out else None,
            max_examples=_MAX_EXAMPLES,
            names_of_readers=_NAMES_OF_READERS,
        )
    )
    path = folder / PAGE
    path.write_bytes(page.encode("utf-8", "replace"))
    return path


_LISTS = ("labels", "won", "lost")


def set_change(name: str, champion: Evaluation, candidate: Evaluation) -> SetChange:
    """Champion against candidate on one set; labels by their change in recall, the largest loss first."""
    before, after = (classifier_metrics(e.labels, e.truth, e.probabilities) for e in (champion, candidate))
    labels = []
    for label, examples in Counter(candidate.truth).items():
        own = candidate.of_label(label)
        labels.append(
            LabelChange(label, examples, float(champion.right[own].mean()), float(candidate.right[own].mean()))
        )
    labels.sort(key=lambda change: (change.points, change.label))
    metrics = {metric: (before[metric], after[metric]) for metric in before}
    won = _changed_examples(champion, candidate, candidate.right & ~champion.right)
    lost = _changed_examples(champion, candidate, champion.right & ~candidate.right)
    return SetChange(name, len(candidate.truth), metrics, labels, won, lost, _readers(champion, candidate))


def _readers(champion: Evaluation, candidate: Evaluation) -> dict[str, tuple[float | None, float | None]]:
    before, after = (
        reader_metrics(e.labels, e.truth, e.parts) if e.parts is not None else {} for e in (champion, candidate)
    )
    return {metric: (before.get(metric), after.get(metric)) for metric in before | after}


def _changed_examples(champion: Evaluation, candidate: Evaluation, which: NDArray[np.bool_]) -> list[ChangedExample]:
    """The examples that the mask `which` selects, by the candidate's confidence, highest first."""
    rows = sorted(np.flatnonzero(which), key=lambda i: -float(candidate.confidence[i]))
    return [
        ChangedExample(
            _cut(candidate.shown_as[i]) if candidate.shown_as else f"number {i + 1}",
            candidate.truth[i],
            champion.predicted[i],
            round(float(champion.confidence[i]), 4),
            candidate.predicted[i],
            round(float(candidate.confidence[i]), 4),
        )
        for i in map(int, rows)
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


class _Cell(NamedTuple):
    row: int
    column: int
    share: float
    examples: int


def _confusion(champion: Evaluation, candidate: Evaluation) -> dict[str, Any]:
    """The nonzero cells of the candidate's confusion matrix, and its commonest confusions beside the champion's.

    Of many labels, the matrix has those that are confused most often.
    """
    occurring = sorted(set(candidate.truth) | set(candidate.predicted))
    confusion = Confusion(occurring, list(candidate.truth), list(candidate.predicted))
    labels = confusion.shown_labels()
    at = {label: i for i, label in enumerate(labels)}
    total = Counter(candidate.truth)
    counts = confusion.counts()
    before = Counter(zip(champion.truth, champion.predicted, strict=True))
    cells = [
        _Cell(at[true], at[said], n / total[true], n) for (true, said), n in counts.items() if true in at and said in at
    ]
    pairs = sorted((pair for pair in counts | before if pair[0] != pair[1]), key=lambda p: (-counts[p], -before[p], p))
    return {
        "labels": labels,
        "left_out": len(occurring) - len(labels),
        "cells": cells,
        "pairs": [(true, said, before[true, said], counts[true, said]) for true, said in pairs[:_MAX_CONFUSIONS]],
    }


def _calibration(champion: Evaluation, candidate: Evaluation) -> dict[str, list[tuple[float, float, int]]]:
    """For each model: (mean confidence, accuracy, examples) of every bin with enough examples."""
    curves = {}
    for name, evaluation in (("champion", champion), ("candidate", candidate)):
        bins = confidence_bins(evaluation.confidence)
        curves[name] = [
            (float(evaluation.confidence[bins == b].mean()), float(evaluation.right[bins == b].mean()), int(n))
            for b, n in enumerate(np.bincount(bins, minlength=CONFIDENCE_BINS))
            if n >= _MIN_IN_BIN
        ]
    return curves


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
