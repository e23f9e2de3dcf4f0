"""Train a ranker on interactions: pool the items' texts, choose the number of epochs, fit the towers, write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.checkpoint import TextModel, load_checkpoint, save_checkpoint, text_encoder
from export.pooling import pooled
from models.data.interactions import Interactions
from models.training.config import Recipe
from models.training.finetune import prepare, set_up
from models.training.progress import ReportStage
from models.training.tower_checkpoint import KINDS, TrainedTowers, text_key
from models.training.tower_examples import Examples, Floats, examples_of, newest, scalings_of
from models.training.towers import BY_ITEM, Towers, TowerSettings, epochs_for, fit_towers, note_behaviour, towers_from

_VALIDATION_SHARE = 0.1
_CONTINUED_EPOCHS = 2
_REPLAYED_EVENTS = 1_000_000  # beside the new ones: some minutes on two cores

Losses = list[tuple[int, float]]
Mask = NDArray[np.bool_]
Read = Callable[[Sequence[str]], Floats]


def fit_ranker(interactions: Interactions, recipe: Recipe, out: Path, report: ReportStage, workers: int = 1) -> Losses:
    """Train on everything but the holdout and write the checkpoint to `out`. The losses, as (step, loss).

    With more than one of `workers`, Ray Train trains; the number of epochs is still chosen in this process.

    The number of epochs is chosen on the newest tenth of each user's training events, by models trained without these.
    Raises CheckpointError for an unknown base, and WorkersError.
    """
    model, tokenizer = prepare(recipe, outputs=1)
    raw = _pooled_texts(model, tokenizer, interactions.texts, recipe, report)
    mean = raw.mean(0)
    scale = float(np.sqrt(((raw - mean) ** 2).sum(1).mean())) or 1.0
    scalings = scalings_of(interactions)
    examples = examples_of(interactions, (raw - mean) / scale, scalings)
    settings = TowerSettings(seed=recipe.seed).for_events(len(examples.user))
    some = examples.only(_some_users(examples, settings))
    validation = some.learn & newest(some.user, _VALIDATION_SHARE)
    epochs = epochs_for(
        some, validation, settings, lambda done, total: report("choosing the number of epochs", done, total)
    )
    members, losses = _fitted(workers, examples, epochs, settings, out, report)
    unseen = np.bincount(examples.item, minlength=examples.items) == 0
    states = [_without(member, unseen) for member in members]
    names = {kind: list(getattr(interactions, f"{kind}_feature_names")) for kind in KINDS}
    items, keys = interactions.item_names, [text_key(text) for text in interactions.texts]
    trained = TrainedTowers(
        states, items, examples.item_features, names, scalings, mean, scale, examples.texts, keys
    )  # fmt: skip
    _save(trained, model, tokenizer, out)
    return losses


def continue_ranker(
    interactions: Interactions,
    new: Mask,
    champion: Path,
    recipe: Recipe,
    out: Path,
    report: ReportStage,
    workers: int = 1,
) -> Losses:
    """As `fit_ranker`, from the champion's checkpoint on the `new` events, (events,), with replay.

    The users with new events are replayed whole, and random others until there are a million old events. The vectors
    are drawn to the champion's instead of to 0, and those of items that were not replayed stay as they were. New items
    start from their text. Features that the champion does not know are left out, until a training from nothing.
    Raises CheckpointError when the champion's checkpoint is of an older version, and WorkersError.
    """
    before = TrainedTowers.load(champion)
    set_up(recipe)
    model, tokenizer = load_checkpoint(champion)
    interactions = with_features(interactions, before.feature_names)
    rows = _rows_before(before.items, interactions.item_names)
    keys = [text_key(text) for text in interactions.texts]

    def read(some: Sequence[str]) -> Floats:
        return _pooled_texts(model, tokenizer, some, recipe, report)

    texts = _texts_with(before, rows, keys, read, interactions.texts)
    examples = examples_of(interactions, texts, before.scalings)
    part = examples.only(_replayed(examples, new[~interactions.events.holdout], recipe.seed))
    settings = TowerSettings(seed=recipe.seed)
    start = [towers_from(member, rows) for member in before.members]
    for towers in start:
        note_behaviour(towers, part)
    members, losses = _fitted(workers, part, _CONTINUED_EPOCHS, settings, out, report, start)
    seen = np.bincount(part.item, minlength=part.items) > 0
    old = [towers_from(member, rows) for member in before.members]
    states = [_mixed(member, champions, seen) for member, champions in zip(members, old, strict=True)]
    trained = TrainedTowers(
        states, interactions.item_names, examples.item_features, before.feature_names, before.scalings,
        before.text_mean, before.text_scale, texts, keys,
    )  # fmt: skip
    _save(trained, model, tokenizer, out)
    return losses


def _fitted(
    workers: int,
    examples: Examples,
    epochs: int,
    settings: TowerSettings,
    out: Path,
    report: ReportStage,
    start: Sequence[Towers] = (),
) -> tuple[list[Towers], Losses]:
    def progress(done: int, total: int) -> None:
        report("training", done, total)

    if workers == 1:
        return fit_towers(examples, epochs, settings, progress, start)
    from models.training.towers_on_workers import fit_towers_on_workers

    return fit_towers_on_workers(workers, examples, epochs, settings, out.parent, progress, start)


def with_features(interactions: Interactions, names: Mapping[str, Sequence[str]]) -> Interactions:
    """The interactions with exactly these features, by kind, in this order; those that they lack are missing."""
    changed: dict[str, Any] = {}
    for kind in KINDS:
        has = {name: i for i, name in enumerate(getattr(interactions, f"{kind}_feature_names"))}
        values = getattr(interactions, f"{kind}_features")
        missing = np.full(len(values), np.nan, np.float32)
        columns = [values[:, has[name]] if name in has else missing for name in names[kind]]
        changed[f"{kind}_features"] = np.stack(columns, 1) if columns else np.zeros((len(values), 0), np.float32)
        changed[f"{kind}_feature_names"] = list(names[kind])
    return replace(interactions, **changed)


def _pooled_texts(
    model: TextModel, tokenizer: Any, texts: Sequence[str], recipe: Recipe, report: ReportStage
) -> Floats:
    """(texts, hidden)"""
    rows = [row.ids for row in text_encoder(tokenizer, recipe.max_length).encode(list(texts))]
    found: Floats = pooled(model.encoder, rows, lambda done, total: report("reading texts", done, total)).numpy()
    return found


def _texts_with(
    before: TrainedTowers, rows: NDArray[np.intp], keys: Sequence[int], read: Read, texts: Sequence[str]
) -> Floats:
    """(items, hidden): as the champion read them; `read` is asked for those that are new or have changed."""
    found = before.texts[np.maximum(rows, 0)]
    known = np.array(before.text_keys, np.int64)[np.maximum(rows, 0)]
    changed = np.flatnonzero((rows < 0) | (known != np.array(keys, np.int64)))
    if len(changed):
        raw = read([texts[at] for at in changed.tolist()])
        found[changed] = (raw - before.text_mean) / np.float32(before.text_scale)
    return found


def _some_users(examples: Examples, settings: TowerSettings) -> Mask:
    """(events,): those of random users, as many as there is one member for. An epoch has as many steps with fewer."""
    counts = np.bincount(examples.user, minlength=examples.users)
    order = np.random.default_rng(settings.seed).permutation(examples.users)
    kept = np.zeros(examples.users, bool)
    kept[order[np.cumsum(counts[order]) <= settings.max_members_events]] = True
    found: Mask = kept[examples.user]
    return found


def _replayed(examples: Examples, new: Mask, seed: int) -> Mask:
    """(events,): those of users with new events, and of random other users."""
    counts = np.bincount(examples.user, minlength=examples.users)
    touched = np.bincount(examples.user, new, minlength=examples.users) > 0
    others = np.random.default_rng(seed).permutation(np.flatnonzero(~touched))
    replayed = others[np.cumsum(counts[others]) <= _REPLAYED_EVENTS]
    touched[replayed] = True
    found: Mask = touched[examples.user]
    return found


def _rows_before(before: Sequence[str], names: Sequence[str]) -> NDArray[np.intp]:
    """(items,): the champion's row of each item; -1 for a new one."""
    row_of = {name: row for row, name in enumerate(before)}
    return np.array([row_of.get(name, -1) for name in names], np.intp)


def _without(member: Towers, unseen: Mask) -> dict[str, Floats]:
    """The member's parameters; items that have no event keep nothing of their random start."""
    state = _state(member)
    for name in BY_ITEM:
        state[name][unseen] = 0.0
    return state


def _mixed(member: Towers, champion: Towers, seen: Mask) -> dict[str, Floats]:
    """The member's parameters; those of items that were not seen are the champion's."""
    state, before = _state(member), _state(champion)
    for name in BY_ITEM:
        state[name][~seen] = before[name][~seen]
    return state


def _state(member: Towers) -> dict[str, Floats]:
    return {name: part.detach().numpy().copy() for name, part in member.state_dict().items()}


def _save(trained: TrainedTowers, model: TextModel, tokenizer: Any, out: Path) -> None:
    weight, bias = trained.head()
    model.head = nn.Linear(weight.shape[1], len(weight))
    with torch.no_grad():
        model.head.weight.copy_(torch.from_numpy(weight))
        model.head.bias.copy_(torch.from_numpy(bias))
    save_checkpoint(out, model, tokenizer, [])
    trained.save(out)
