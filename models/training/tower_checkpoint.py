"""The trained towers in a checkpoint (`towers.safetensors`, beside encoder and head), and the ranker made of them.

A later version starts from these parameters. The head has the projections of new items' texts alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file

from export.errors import CheckpointError
from models.tasks.ranker import Features, Ranker, Rate
from models.training.tower_examples import Scaling, Scalings

Floats = NDArray[np.float32]
TOWERS_FILE = "towers.safetensors"
KINDS = ("item", "user", "context")


@dataclass(frozen=True)
class TrainedTowers:
    """The members' parameters, by the names of models.training.towers.Towers, and what they were trained on."""

    members: Sequence[Mapping[str, Floats]]
    items: Sequence[str]
    """their names, in the order of the members' rows"""
    item_features: Floats
    """(items, k), standardized"""
    feature_names: Mapping[str, Sequence[str]]
    """by kind: item, user, context"""
    scalings: Scalings
    text_mean: Floats
    """(hidden,): subtracted from pooled texts, which are then divided by `text_scale`"""
    text_scale: float
    texts: Floats
    """(items, hidden): the items' texts, pooled, less the mean, scaled"""
    text_keys: Sequence[int]
    """by item, of what was read: `text_key`"""

    def save(self, folder: Path) -> None:
        """Write to the checkpoint `folder`."""
        arrays = {f"{i}.{name}": part for i, member in enumerate(self.members) for name, part in member.items()}
        arrays |= {"item_features": self.item_features, "text_mean": self.text_mean}
        scalings = {kind: [part.tolist() for part in getattr(self.scalings, kind)] for kind in KINDS}
        record = {
            "items": list(self.items), "names": {kind: list(names) for kind, names in self.feature_names.items()},
            "scalings": scalings, "text_scale": self.text_scale, "members": len(self.members),
            "text_keys": list(self.text_keys),
        }  # fmt: skip
        whole = {name: np.array(part, np.float32, order="C") for name, part in arrays.items()}
        whole["texts"] = self.texts.astype(np.float16)  # half the size, and a thousandth of the noise of int8
        save_file(whole, folder / TOWERS_FILE, metadata={"record": orjson.dumps(record).decode()})

    @classmethod
    def load(cls, folder: Path) -> TrainedTowers:
        """Of the checkpoint `folder`. Raises CheckpointError when it has none, as those of older versions."""
        if not (folder / TOWERS_FILE).is_file():
            raise CheckpointError(
                f"{folder} has no {TOWERS_FILE}: it is of an older version of Flywheel. Train the task again: "
                "flywheel train recommendation."
            )
        with safe_open(folder / TOWERS_FILE, "np") as opened:
            record = orjson.loads(opened.metadata()["record"])
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  it is no dict
        prefixes = [f"{i}." for i in range(record["members"])]
        members = [
            {name.removeprefix(prefix): part for name, part in arrays.items() if name.startswith(prefix)}
            for prefix in prefixes
        ]
        scalings = Scalings(*(_scaling(record["scalings"][kind]) for kind in KINDS))
        return cls(
            members, record["items"], arrays["item_features"], record["names"], scalings, arrays["text_mean"],
            record["text_scale"], arrays["texts"].astype(np.float32), record["text_keys"],
        )  # fmt: skip

    def head(self) -> tuple[Floats, Floats]:
        """The head on pooled texts whose outputs describe a new item: (2 d + 1, hidden), bias.

        They are an item vector `A' t`, a history vector `B t`, and the item's own term `w' . t`.
        """
        parts = [self._joined("new_item_text"), self._joined("history_text"), self._mean("new_text_weight")[None]]
        weight: Floats = np.concatenate(parts) / np.float32(self.text_scale)
        bias: Floats = -weight @ self.text_mean
        return weight, bias

    def ranker(self) -> Ranker:
        """The ranker. Of its items, those without behaviour are described by their text as new ones are."""
        new = self.members[0]["has_behaviour"] == 0
        item_vectors = self._joined("item_ids", axis=1) + self.texts @ self._joined("item_text").T
        item_vectors[new] = self.texts[new] @ self._joined("new_item_text").T
        item_terms = self._mean("item_bias") + self.texts @ self._mean("text_weight")
        item_terms[new] = self.texts[new] @ self._mean("new_text_weight")
        arrays = {
            "item_vectors": item_vectors,
            "history_vectors": self._joined("history_ids", axis=1) + self.texts @ self._joined("history_text").T,
            "item_terms": item_terms,
            "item_features": self.item_features,
        }
        d = item_vectors.shape[1]
        rate = Rate(float(self.members[0]["mean_rate"]), float(self._mean("rate_weight")))
        item, user, context = (
            Features(
                self.feature_names[kind],
                *self.scalings[i],
                self._mean(f"feature_weights.{i}"),
                self._joined(f"feature_vectors.{i}").T,
                d,
            )
            for i, kind in enumerate(KINDS)
        )
        return Ranker(self.items, arrays, float(self._mean("bias")), rate, item, user, context)

    def _joined(self, name: str, axis: int = 0) -> Floats:
        """The members' vectors side by side, so that a product of two is the mean of the members' products."""
        parts = [member[name] for member in self.members]
        joined: Floats = np.concatenate(parts, axis) / np.float32(np.sqrt(len(parts)))
        return joined

    def _mean(self, name: str) -> Floats:
        found: Floats = np.mean([member[name] for member in self.members], axis=0, dtype=np.float32)
        return found


def text_key(text: str) -> int:
    """By which it is seen whether an item's text has changed."""
    return zlib.crc32(text.encode(errors="surrogatepass"))


def _scaling(parts: Any) -> Scaling:
    mean, scale = (np.array(part, np.float64) for part in parts)
    return mean, scale
