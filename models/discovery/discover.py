"""One run of discovery for a task: reads the log and the champion's holdout, and computes vectors. Takes seconds.

It runs in a process of its own, since it loads torch for the sentence vectors and scikit-learn for the clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.base_model import DEFAULT_BASE
from export.bundle import Bundle
from export.errors import BundleError, CheckpointError
from export.heads import softmax
from models.curation.types import Embed
from models.data.dataset import Example
from models.discovery.logged_texts import LoggedText, read_log
from models.discovery.new_labels import MAX_TEXTS, MIN_TEXTS, Proposal, find_new_labels, is_unsure
from models.discovery.overlaps import Overlap, overlapping
from models.feedback.store import Store
from models.home import bundle_folder

_MAX_HOLDOUT = 2_000  # texts that the champion reads again: some seconds
T = TypeVar("T")


class Discovery(NamedTuple):
    """What was found."""

    champion: str | None
    texts: int
    """different texts of the log that nobody has labelled"""
    unsure: int
    """of them, those that were handed off or unsure, of which labels are proposed"""
    proposals: list[Proposal]
    overlaps: list[Overlap]


def discover(store: Store, home: Path, task: str, embed: Embed | None = None) -> Discovery:
    """Proposed labels and overlapping ones.

    `embed`: texts to vectors of unit length; by default those of the champion's base model.

    Raises StoreError, and CheckpointError when the base model cannot be loaded.
    """
    log = read_log(store, home, task)
    bundle = _bundle(home, task, log.champion)
    holdout = _holdout(home, task, bundle)
    unsure = [text for text in log.texts if is_unsure(text.prediction)][:MAX_TEXTS]
    proposals: list[Proposal] = []
    if len(unsure) >= MIN_TEXTS:
        texts = [text.text for text in log.texts]
        embed = embed or _base_vectors(bundle)
        common = embed([*spread(texts), *spread([example.text for example in holdout])]).mean(0)
        proposals = find_new_labels(unsure, embed([text.text for text in unsure]), common, texts)
    names, probabilities = _read(bundle, holdout)
    overlaps = overlapping(log.labels, names, [example.label for example in holdout], probabilities)
    return Discovery(log.champion, len(log.texts), len(unsure), proposals, overlaps)


def spread(texts: Sequence[T], count: int = 200) -> Sequence[T]:
    """At most `count` of the texts, from all parts of the list."""
    return [texts[i] for i in np.linspace(0, len(texts) - 1, count, dtype=int)] if len(texts) > count else texts


def members(discovery: Discovery) -> list[LoggedText]:
    """The texts on which the proposals rest."""
    return [text for proposal in discovery.proposals for text in proposal.texts]


def _base_vectors(bundle: Bundle | None) -> Embed:
    from models.curation.embeddings import base_encoder

    if bundle is not None:
        with suppress(CheckpointError):  # an imported checkpoint may come from a base that is not on this machine
            return base_encoder(bundle.manifest.base_model, bundle.manifest.max_length)
    return base_encoder(DEFAULT_BASE)


def _holdout(home: Path, task: str, bundle: Bundle | None) -> list[Example]:
    """Texts of the champion's holdout; none where its corpus is not on this disk."""
    from models.data.dataset import DatasetError, load_corpus

    if bundle is None:
        return []
    try:
        holdout = load_corpus(home, task, bundle.manifest.data).holdout
    except (DatasetError, OSError):
        return []
    drawn = np.random.default_rng(0).permutation(len(holdout))[:_MAX_HOLDOUT]
    return [holdout[i] for i in drawn.tolist()]


def _read(bundle: Bundle | None, holdout: Sequence[Example]) -> tuple[Sequence[str], NDArray[np.float32]]:
    """The champion's labels, and its probabilities for the texts, (texts, labels)."""
    from export.model import Model

    if bundle is None or not holdout:
        return [], np.zeros((0, 0), np.float32)
    outputs = Model.open(bundle, providers="cpu").predict([example.text for example in holdout])
    return bundle.manifest.labels, softmax(outputs)


def _bundle(home: Path, task: str, version: str | None) -> Bundle | None:
    if version is None:
        return None
    try:
        return Bundle.open(bundle_folder(home, task, version))
    except BundleError:
        return None
