"""The different texts of a task's prediction log that nobody has labelled yet, from its newest part."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from export.bundle import read_manifest
from export.errors import BundleError
from models.feedback.store import Store
from models.feedback.store.label_join import key_of_text
from models.feedback.types import GivenLabel, LoggedPrediction
from models.home import bundle_folder
from models.releases.release import ReleaseError, read_release
from models.text import same_text_key

MAX_TEXTS = 20_000
"""read of the log, from its newest on; a log of millions costs no more"""
MAX_LABELS = 20_000
"""read of the feedback, from its newest on"""


@dataclass(frozen=True, slots=True)
class LoggedText:
    """A text of the log with the newest prediction for it. Personal data is redacted in the log already."""

    id: str
    """of the prediction"""
    index: int
    """its place among the prediction's texts"""
    text: str
    prediction: Mapping[str, Any]
    version: str
    of: int = 1
    """texts of the prediction"""
    times: int = 1
    """how often it was asked, in the part of the log that was read"""
    new: bool = True
    """whether it was first asked after the champion was trained"""


class LabelledTexts:
    """What people have labelled, by prediction and by text."""

    def __init__(self, task: str, labels: Sequence[GivenLabel]):
        self._task = task
        self.texts = list(dict.fromkeys(label.text for label in labels if label.text))
        """the texts themselves, of labels with consent"""
        self._keys = {same_text_key(text) for text in self.texts}
        self._of_prediction: defaultdict[str, list[GivenLabel]] = defaultdict(list)
        for label in labels:
            if label.prediction_id is not None:
                self._of_prediction[label.prediction_id].append(label)

    def add_text(self, key: str) -> None:
        """Count a text as labelled, given its key (`same_text_key`)."""
        self._keys.add(key)

    def has_text(self, key: str) -> bool:
        return key in self._keys

    def has(self, id_: str, index: int, texts: int) -> bool:
        """Whether somebody labelled this text of a prediction that has so many texts."""
        given = self._of_prediction.get(id_, ())
        # Without consent, the row has no text: of several, the key says which one it is about.
        return any(texts == 1 or label.key == key_of_text(self._task, id_, index, label.source) for label in given)


class Log(NamedTuple):
    """What was read of a task's log and feedback."""

    champion: str | None
    """None where no version is released"""
    texts: list[LoggedText]
    labelled: LabelledTexts
    labels: list[GivenLabel]


def read_log(store: Store, home: Path, task: str) -> Log:
    """The newest part of the task's log, without what is labelled. Raises StoreError."""
    labels = store.feedback.labels(task, MAX_LABELS)
    champion, created = _champion(home, task)
    labelled = LabelledTexts(task, labels)
    return Log(champion, different_texts(store.predictions.by_time(task), labelled, created), labelled, labels)


def different_texts(
    rows: Iterable[LoggedPrediction], labelled: LabelledTexts, champion_created: datetime | None = None
) -> list[LoggedText]:
    """The texts of `rows`, newest first, each once with its newest prediction; those of labelled texts are left out."""
    found: dict[str, LoggedText] = {}
    times: defaultdict[str, int] = defaultdict(int)
    first: dict[str, datetime] = {}
    read = 0
    for row in rows:
        for index, (text, prediction) in enumerate(zip(row.input, row.output, strict=False)):
            if not (key := same_text_key(text)):
                continue
            times[key] += 1
            first[key] = row.at
            if labelled.has(row.id, index, len(row.input)):
                labelled.add_text(key)
            elif key not in found:
                found[key] = LoggedText(row.id, index, text, prediction, row.version, len(row.input))
        read += len(row.input)
        if read >= MAX_TEXTS:
            break
    return [
        replace(text, times=times[key], new=champion_created is None or first[key] >= champion_created)
        for key, text in found.items()
        if not labelled.has_text(key)
    ]


def uncertainty(prediction: Mapping[str, Any]) -> float:
    """How unsure the model was: 1 less the margin between its two best labels, 0 to 1.

    A prediction that lists no other label is taken for one whose second label has the rest of the probability.
    """
    scores = [candidate["score"] for candidate in prediction.get("top_k", ())]
    scores = scores or list(prediction.get("scores", {}).values())
    if len(scores) < 2:
        score = float(prediction["score"])
        return 1 - max(0.0, score - (1 - score))
    second, best = sorted(scores)[-2:]
    return 1 - float(best - second)


def _champion(home: Path, task: str) -> tuple[str | None, datetime | None]:
    """The version that serves, and when it was made; None where that cannot be read."""
    try:
        version = read_release(home, task).champion
    except ReleaseError:
        return None, None
    try:
        created = datetime.fromisoformat(read_manifest(bundle_folder(home, task, version)).created)
    except (BundleError, ValueError):
        return version, None
    return version, created if created.tzinfo else created.replace(tzinfo=UTC)
