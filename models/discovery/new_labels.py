"""Labels that are missing: groups of similar texts among those that the model handed off or was unsure of.

As in Rabinovich et al., 2022 (https://arxiv.org/abs/2204.05158): sentence vectors, a clustering that leaves out what is
like nothing else, and names made of the words that set a cluster apart. docs/decisions/0049-what-to-label-next.md has
the figures of the clusterings that were compared.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.discovery.logged_texts import LoggedText
from models.text import MAX_LABEL, words

MAX_TEXTS = 3_000
"""clustered, the newest; the distances of all pairs take 72 MB"""
MIN_TEXTS = 5
"""different texts that make a proposal"""
_UNSURE_BELOW = 0.9  # more than what is handed off, since most texts of an unknown label get a score above 0.5
_MAX_DISTANCE = 0.4  # mean cosine distance of two clusters that are merged
_REASONS_OF_KNOWN = ("asked_for_person", "nothing_known")  # of a handoff whose intent the model was sure of
_NAME_WORDS = 3
_MIN_SHARE_OF_WORD = 0.2  # of a cluster's texts, and at least two: a word of one text is not a name for others
_PLACEHOLDER = re.compile(r"\[[a-z_ ]+\]")  # of redacted personal data

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A label that may be missing."""

    name: str
    texts: tuple[LoggedText, ...]
    """the most typical first"""
    cohesion: float
    """mean cosine of its texts to their mean, up to 1"""
    taken_for: dict[str, float]
    """share of its texts by the label that the model gave them, the most frequent first"""

    @property
    def requests(self) -> int:
        return sum(text.times for text in self.texts)

    @property
    def wrong(self) -> float:
        """Requests that were probably answered wrong, by their scores."""
        return sum(text.times * (1 - float(text.prediction["score"])) for text in self.texts)


def is_unsure(prediction: Mapping[str, Any]) -> bool:
    """Whether the model may not know the text's label: it handed the text off, or its score is not high."""
    handed_off = bool(prediction.get("handoff")) and prediction.get("reason") not in _REASONS_OF_KNOWN
    return handed_off or float(prediction["score"]) < _UNSURE_BELOW


def find_new_labels(
    unsure: Sequence[LoggedText], vectors: Floats, common: Floats, background: Sequence[str]
) -> list[Proposal]:
    """Proposals from texts and their vectors of unit length, (texts, dimensions).

    First those with the most requests that were probably answered wrong. `common`, (dimensions,), is the mean vector of
    texts on all subjects of the task. `background` are texts of the whole log: a word that is frequent there names
    nothing.
    """
    if len(unsure) < MIN_TEXTS:
        return []
    members: defaultdict[int, list[int]] = defaultdict(list)
    for i, cluster in enumerate(clusters(vectors, common).tolist()):
        members[cluster].append(i)
    groups = [rows for rows in members.values() if len(rows) >= MIN_TEXTS]
    frequency = Counter(word for text in background for word in _words(text))
    found = [_proposal([unsure[i] for i in rows], vectors[rows], frequency, len(background)) for rows in groups]
    return sorted(found, key=lambda proposal: (-proposal.wrong, proposal.name))


def clusters(vectors: Floats, common: Floats) -> NDArray[np.intp]:
    """The number of each row's cluster, (rows,); what is like nothing else is alone, or one of a few.

    What all texts of the task have in common is taken off first: how alike any two texts are differs from one encoder
    to the next.
    """
    from sklearn.cluster import AgglomerativeClustering

    own = vectors - common
    own /= np.maximum(np.linalg.norm(own, axis=1, keepdims=True), 1e-9)
    found = AgglomerativeClustering(None, metric="cosine", linkage="average", distance_threshold=_MAX_DISTANCE)
    numbers: NDArray[np.intp] = found.fit_predict(own)
    return numbers


def _proposal(texts: Sequence[LoggedText], vectors: Floats, frequency: Counter[str], background: int) -> Proposal:
    centre = vectors.mean(0)
    centre /= max(float(np.linalg.norm(centre)), 1e-9)
    typical = vectors @ centre
    ordered = [texts[i] for i in np.argsort(-typical, kind="stable").tolist()]
    labels = Counter(str(text.prediction["label"]) for text in texts)
    return Proposal(
        cluster_name([text.text for text in ordered], frequency, background), tuple(ordered), float(typical.mean()),
        {label: count / len(texts) for label, count in labels.most_common()},
    )  # fmt: skip


def cluster_name(texts: Sequence[str], frequency: Mapping[str, int], background: int) -> str:
    """The words that set the texts apart, in the order in which they are usually said: `exchange_rate_wrong`.

    Words are weighted as in class-based TF-IDF (Grootendorst, 2022, https://arxiv.org/abs/2203.05794). `frequency`:
    texts of the log that have a word, of `background` texts.
    """
    places: defaultdict[str, list[float]] = defaultdict(list)
    for text in texts:
        said = _words(text)
        for place, word in enumerate(said):
            places[word].append(place / len(said))
    least = max(2.0, _MIN_SHARE_OF_WORD * len(texts))
    weights = {
        word: len(at) * np.log(1 + background / max(frequency.get(word, 0), 1))
        for word, at in places.items()
        if len(at) >= least
    }
    best = sorted(weights, key=lambda word: (-weights[word], -len(word), word))[:_NAME_WORDS]
    return "_".join(sorted(best, key=lambda word: np.mean(places[word])))[:MAX_LABEL] or "unnamed"


def _words(text: str) -> list[str]:
    """The different words of a text in order, without numbers and placeholders."""
    found = words(_PLACEHOLDER.sub(" ", text))
    return list(dict.fromkeys(word for word in found if len(word) > 1 and word.isalpha()))
