"""Interactions of users with items as columns: the training data of the recommendation task.

20 million events take half a gigabyte; an object an event would take ten. models/data/interaction_files.py reads them
from files, models/data/implicit_feedback.py from the prediction log.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

from export.bundle import Lineage
from models.data.records import DatasetError
from models.tasks.event_names import STARS, RatingScale

KEPT_ENDING = ".npz"
"""of files that save_kept writes"""

Features = NDArray[np.float32]
"""(rows, features); NaN where a value is missing"""


@dataclass(frozen=True, eq=False)
class Events:
    """What users did, one entry an event in every array, sorted by user, then by time."""

    user: NDArray[np.int32]
    """number of the user, from 0"""
    item: NDArray[np.int32]
    """number of the item, from 0"""
    chosen: NDArray[np.bool_]
    """whether the user chose the item; otherwise they were shown it, or dislike it"""
    weight: NDArray[np.float32]
    """how much the event says, above 0; 1 for a click or a rating"""
    time: NDArray[np.float64]
    """in the file's unit; only the order counts"""
    holdout: NDArray[np.bool_]
    """kept for evaluation: nothing is fitted to it"""
    before: NDArray[np.bool_]
    """chosen before the recording: history of the user, but not a choice among shown items to learn from"""
    sampled: NDArray[np.bool_]
    """not an event: an item that was drawn as not chosen. It is learned from, and is no part of the user's history"""

    def __post_init__(self) -> None:
        for column, dtype in _DTYPES.items():
            values = np.ascontiguousarray(getattr(self, column), dtype)
            if values.shape != (len(self.user),):
                raise ValueError(f"{column} has the shape {values.shape}, and user {np.shape(self.user)}")
            object.__setattr__(self, column, values)

    def __len__(self) -> int:
        return len(self.user)

    @classmethod
    def empty(cls) -> Self:
        return cls(**{column: np.zeros(0, dtype) for column, dtype in _DTYPES.items()})

    @classmethod
    def of(
        cls,
        user: Any,
        item: Any,
        chosen: Any,
        time: Any,
        *,
        weight: Any = 1.0,
        holdout: Any = False,
        before: Any = False,
        sampled: Any = False,
    ) -> Self:
        """Events from columns in any order of rows that numpy can broadcast, for instance from lists."""
        given = {
            "user": user, "item": item, "chosen": chosen, "weight": weight, "time": time, "holdout": holdout,
            "before": before, "sampled": sampled,
        }  # fmt: skip
        length = len(user)
        columns = {name: np.broadcast_to(np.asarray(values, _DTYPES[name]), length) for name, values in given.items()}
        return cls(**columns).sorted()

    def take(self, rows: Any) -> Self:
        """The events at `rows`: numbers, a slice or a mask that keep the order."""
        return type(self)(**{column: getattr(self, column)[rows] for column in _DTYPES})

    def joined(self, more: Events) -> Self:
        """These events and then `more`, not sorted yet."""
        return type(self)(**{name: np.concatenate([getattr(self, name), getattr(more, name)]) for name in _DTYPES})

    def sorted(self) -> Self:
        """Sorted by user, then by time; equals stay in their order."""
        return self.take(self.order())

    def order(self) -> NDArray[np.intp]:
        """The rows in the order of user and time."""
        return np.lexsort((self.time, self.user))

    def users(self) -> Iterator[tuple[int, slice]]:
        """(user, rows) of each user that has events. The rows are one slice, since events are sorted by user."""
        starts = np.flatnonzero(np.diff(self.user, prepend=-1))
        for start, end in pairwise([*starts.tolist(), len(self)]):
            yield int(self.user[start]), slice(start, end)

    @property
    def training(self) -> NDArray[np.bool_]:
        """(events,): those that a model is fitted to."""
        return ~(self.holdout | self.before)


_DTYPES: dict[str, type[np.generic]] = {
    "user": np.int32, "item": np.int32, "chosen": np.bool_, "weight": np.float32, "time": np.float64,
    "holdout": np.bool_, "before": np.bool_, "sampled": np.bool_,
}  # fmt: skip


def _no_features() -> Features:
    """For any number of rows."""
    return np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class Interactions:
    """Events with their users and items. Compare two by their fingerprint."""

    name: str
    user_names: Sequence[str]
    item_names: Sequence[str]
    texts: Sequence[str]
    """by item; "" for an item of a logged ranking that had none"""
    events: Events
    fingerprint: str = ""
    """sha256 of everything but name, ratings and notes; computed where none is given"""
    item_features: Features = field(default_factory=_no_features)
    """(items, k)"""
    item_feature_names: Sequence[str] = ()
    user_features: Features = field(default_factory=_no_features)
    """(users, m)"""
    user_feature_names: Sequence[str] = ()
    context_features: Features = field(default_factory=_no_features)
    """(events, c): of the moment, such as the hour"""
    context_feature_names: Sequence[str] = ()
    added: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """fields of the lineage about events that are not from the file"""
    ratings: RatingScale = STARS
    """what ratings meant in the file, to read those of requests and feedback alike"""
    notes: tuple[str, ...] = ()
    """what a user should know about a version that is trained on these, in sentences"""

    def __post_init__(self) -> None:
        for kind, rows in self._rows().items():
            values = np.ascontiguousarray(getattr(self, f"{kind}_features"), np.float32)
            names = getattr(self, f"{kind}_feature_names")
            values = values if names else np.zeros((rows, 0), np.float32)
            if values.shape != (rows, len(names)):
                raise ValueError(f"{kind}_features has the shape {values.shape}")
            object.__setattr__(self, f"{kind}_features", values)
        if len(self.texts) != len(self.item_names):
            raise ValueError("there must be one text an item")
        if not self.fingerprint:
            object.__setattr__(self, "fingerprint", self._digest())

    def lineage(self) -> Lineage:
        """The lineage that the bundle and the MLflow run record."""
        return Lineage(
            name=self.name,
            train_rows=int(self.events.training.sum()),
            holdout_rows=int(self.events.holdout.sum()),
            items=len(self.item_names),
            fingerprint=self.fingerprint,
            **self.added,
        )

    def item_numbers(self, item: int) -> dict[str, float]:
        """The features that are known of an item, by name, as a request has them."""
        row = self.item_features[item].tolist()
        return {name: value for name, value in zip(self.item_feature_names, row, strict=True) if value == value}

    def _rows(self) -> dict[str, int]:
        return {"item": len(self.item_names), "user": len(self.user_names), "context": len(self.events)}

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for name, part in self.arrays().items():
            # `chosen` has what ratings meant; notes are sentences, which a later version may word in another way.
            if name in ("ratings", "notes"):
                continue
            digest.update(f"{name} {part.dtype.str} {part.shape}".encode())
            part = np.where(np.isnan(part), np.nan, part) if part.dtype.kind == "f" else part
            digest.update(part.data)
        return digest.hexdigest()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All of it but the fingerprint, in arrays whose bytes are the same on every machine."""
        strings = {
            name: list(getattr(self, name))
            for name in (
                "user_names", "item_names", "texts", "item_feature_names", "user_feature_names",
                "context_feature_names",
            )
        }  # fmt: skip
        return {
            "strings": np.frombuffer(orjson.dumps(strings), np.uint8),
            "ratings": np.array(self.ratings, np.float64),
            "notes": np.frombuffer(orjson.dumps(self.notes), np.uint8),
            **{column: getattr(self.events, column) for column in _DTYPES},
            **{f"{kind}_features": getattr(self, f"{kind}_features") for kind in self._rows()},
        }


def save_kept(interactions: Interactions, file: Path) -> None:
    """Write all columns to `file`, in numpy's format; `read_kept` reads them to the same fingerprint."""
    with file.open("wb") as out:
        np.savez_compressed(out, **interactions.arrays())  # type: ignore[arg-type]


def read_kept(file: Path) -> Interactions:
    """What `save_kept` wrote, as it is: it was checked when it was read. Raises DatasetError for another file."""
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in kept.files}
        strings, notes = (orjson.loads(arrays.pop(name).tobytes()) for name in ("strings", "notes"))
        events = Events(**{column: arrays.pop(column) for column in _DTYPES})
        ratings = RatingScale(*arrays.pop("ratings").tolist())
        return Interactions(name=file.stem, events=events, ratings=ratings, notes=tuple(notes), **strings, **arrays)
    except Exception as error:  # zipfile, zlib, numpy and orjson raise a dozen types
        raise DatasetError(f"{file} is damaged, or of an older version of Flywheel: {error}. Copy it again from where "
                           "it was written, or train a new version.") from error  # fmt: skip
