"""Two towers that read a user's history: how a ranker is trained (docs/decisions/0040-towers.md).

The logit that a user chooses an item in a context is

    b + b_item + w . t_item + q . x_item + r . f_user + s . c_context + g rate_user + <h_user, v_item>
    v_item = V_item + A t_item + C x_item
        of an item without behaviour: A' t_item + C x_item, and w' . t_item instead of b_item + w . t_item
    h_user = sum over chosen a_j p_j / sqrt(n_chosen + 5) - sum over not chosen a_j p_j / sqrt(n_not + 5) + U f + K c
    p_j    = P_j + B t_j
    rate   = log((n_chosen + 5 m) / (n_not + 5 (1 - m))) - log(m / (1 - m))

with the frozen encoder's pooled vector `t` of an item's text, numeric features `x`, `f` and `c`, and the weight `a_j`
of an event; `m` is the share of all training events that are chosen. `V`, `P` and `b_item` are learned for each item
with behaviour, and `A` and `w` say what these leave open. `A'` and `w'` have to say it all, so they are learned apart:
each event is scored a second time as if its item were new, and of that only `A'` and `w'` learn. The scored item is
left out of the history that scores it, in training as in serving.

Sums are kept for each user, so that an epoch takes time and memory in proportion to the events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.data.histories import Histories, Indices
from models.evaluation.metrics import ranker_metrics
from models.tasks.ranker import SHRINKAGE
from models.training.tower_examples import Examples, Floats, history_of

Progress = Callable[[int, int], None]

BY_ITEM = ("item_ids", "history_ids", "item_bias", "has_behaviour")
"""what has a row for each item"""


_MIN_EVENTS_FOR_THREADS = 50_000  # in a batch


@dataclass(frozen=True)
class TowerSettings:
    """How towers are trained. Chosen on validation parts of training data: docs/decisions/0040-towers.md."""

    dimensions: int = 32
    members: int = 3
    """models with other seeds, whose mean logit is the model's: it is one model of `members` times the dimensions"""
    max_members_events: int = 3_000_000
    """above so many events one model is trained, since its members would hardly differ: see `for_events`"""
    max_epochs: int = 30
    patience: int = 3
    """validated epochs without a better one, after which the number of epochs is chosen"""
    learning_rate: float = 0.005
    projection_rate: float = 0.003
    """of the projections of texts"""
    id_decay: float = 2.0
    """AdamW's decay of the vectors of ids: without it they learn single events by heart within two epochs"""
    bias_decay: float = 0.0
    projection_decay: float = 6.0
    id_dropout: float = 0.1
    """share of the items of a batch whose ids are left out: what texts say together with ids they must say alone too"""
    text_dropout: float = 0.2
    steps_per_epoch: int = 40
    min_batch_events: int = 1024
    prior: float = 10.0
    """events at the mean by which popularity, the start of an item's own term, is smoothed"""
    likeness: float = 0.1
    """the factor of the texts' principal axes at the start"""
    seed: int = 7

    def for_events(self, events: int) -> TowerSettings:
        """These settings for so many events in all."""
        return self if events <= self.max_members_events else replace(self, members=1)


class Towers(nn.Module):
    """The parameters of the module's formula. `widths` are the numbers of features of items, users and contexts."""

    def __init__(self, items: int, hidden: int, widths: tuple[int, int, int], dimensions: int):
        super().__init__()
        self.item_ids = nn.Parameter(torch.randn(items, dimensions) * 0.01)  # V
        self.history_ids = nn.Parameter(torch.randn(items, dimensions) * 0.01)  # P
        self.item_bias = nn.Parameter(torch.zeros(items))
        self.item_text = nn.Parameter(torch.randn(dimensions, hidden) * 0.1)  # A
        self.history_text = nn.Parameter(torch.randn(dimensions, hidden) * 0.1)  # B
        self.text_weight = nn.Parameter(torch.zeros(hidden))  # w
        self.new_item_text = nn.Parameter(torch.randn(dimensions, hidden) * 0.1)  # A'
        self.new_text_weight = nn.Parameter(torch.zeros(hidden))  # w'
        self.has_behaviour: Tensor
        self.register_buffer("has_behaviour", torch.zeros(items))
        self.bias = nn.Parameter(torch.zeros(()))
        self.rate_weight = nn.Parameter(torch.zeros(()))  # g
        self.mean_rate: Tensor
        self.register_buffer("mean_rate", torch.tensor(0.5))  # m
        self.feature_vectors = nn.ParameterList(torch.zeros(dimensions, width) for width in widths)  # C, U, K
        self.feature_weights = nn.ParameterList(torch.zeros(width) for width in widths)  # q, r, s

    def forward(self, batch: Batch, id_dropout: float = 0.0, text_dropout: float = 0.0) -> tuple[Tensor, Tensor]:
        """The logits of the batch's events, and those if each event's item were new."""
        x, f, c = batch.item_features, batch.user_features, batch.context_features
        item_vectors, user_vectors, context_vectors = self.feature_vectors
        item_weights, user_weights, context_weights = self.feature_weights
        texts = nn.functional.dropout(batch.texts, text_dropout)
        kept = (torch.rand(len(batch.items), 1) >= id_dropout).float()
        of_features = x @ item_vectors.T
        vectors = self.item_ids[batch.items] * kept + texts @ self.item_text.T + of_features
        past = self.history_ids[batch.items] * kept + texts @ self.history_text.T
        terms = self.item_bias[batch.items] * kept[:, 0] + texts @ self.text_weight
        tastes, rates = self._tastes(batch, past)
        tastes = tastes + (f @ user_vectors.T)[batch.user] + c @ context_vectors.T
        fixed: Tensor = (
            self.bias
            + (x @ item_weights)[batch.item]
            + (f @ user_weights)[batch.user]
            + c @ context_weights
            + self.rate_weight * rates
        )
        logits: Tensor = fixed + terms[batch.item] + (tastes * vectors[batch.item]).sum(1)
        new_vectors = texts @ self.new_item_text.T + of_features.detach()
        new_terms = texts @ self.new_text_weight
        as_new = fixed.detach() + new_terms[batch.item] + (tastes.detach() * new_vectors[batch.item]).sum(1)
        return logits, as_new

    def _tastes(self, batch: Batch, past: Tensor) -> tuple[Tensor, Tensor]:
        """The history's part of h_user, (events, dimensions), and the rates, both without each event's own item."""
        weighted = past[batch.past_item] * batch.past_weight[:, None]
        group = 2 * batch.past_user + batch.past_chosen
        groups = 2 * batch.users
        sums = past.new_zeros(groups, past.shape[1]).index_add(0, group, weighted)
        counts = torch.bincount(group, minlength=groups).to(past.dtype)
        inside = (batch.own >= 0).to(past.dtype)
        own = weighted[batch.own.clamp(min=0)] * inside[:, None]
        own_chosen = batch.past_chosen[batch.own.clamp(min=0)] * inside
        parts, numbers = [], []
        for chosen, its_own in ((1, own_chosen), (0, inside - own_chosen)):
            where = 2 * batch.user + chosen
            numbers.append(counts[where] - its_own)
            parts.append((sums[where] - own * its_own[:, None]) / (numbers[-1] + SHRINKAGE).sqrt()[:, None])
        mean = self.mean_rate
        rates = (numbers[0] + SHRINKAGE * mean).log() - (numbers[1] + SHRINKAGE * (1 - mean)).log() - mean.logit()
        return parts[0] - parts[1], rates


def towers_from(member: Mapping[str, Floats], rows: NDArray[np.intp]) -> Towers:
    """Towers with these parameters, whose items are the `rows` of the parameters' own; those of -1 start at 0."""
    state = {name: torch.from_numpy(part.copy()) for name, part in member.items()}
    new = torch.from_numpy(rows < 0)
    for name in BY_ITEM:
        state[name] = state[name][torch.from_numpy(np.maximum(rows, 0))]
        state[name][new] = 0.0
    dimensions, hidden = state["item_text"].shape
    widths = tuple(state[f"feature_weights.{i}"].shape[0] for i in range(3))
    towers = Towers(len(rows), hidden, (widths[0], widths[1], widths[2]), dimensions)
    towers.load_state_dict(state)
    return towers


class Batch(NamedTuple):
    """Some users' events and history; `items` are those in either, and all other indices point into the batch."""

    users: int
    items: Tensor
    texts: Tensor
    item_features: Tensor
    user_features: Tensor
    context_features: Tensor
    user: Tensor
    item: Tensor
    own: Tensor
    chosen: Tensor
    weight: Tensor
    past_user: Tensor
    past_item: Tensor
    past_chosen: Tensor
    past_weight: Tensor


class Batches:
    """Batches of whole users, of about `size` events. `events` are scored, with `history`."""

    def __init__(self, events: Examples, history: Histories, size: int):
        self._events, self._history, self.size = events, history, size
        self._own = history.rows_of(events.user, events.item, events.items)
        self._starts = np.searchsorted(events.user, np.arange(events.users + 1))

    def __len__(self) -> int:
        return max(1, -(-len(self._events.user) // self.size))

    def shuffled(self, rng: np.random.Generator | None) -> Iterator[tuple[Batch, Indices]]:
        """Each batch with the rows of its events; in the order of users without `rng`."""
        counts = np.diff(self._starts)
        users = np.flatnonzero(counts)
        if rng is not None:
            users = rng.permutation(users)
        batch_of = np.cumsum(counts[users]) // self.size
        for part in np.split(users, np.flatnonzero(np.diff(batch_of)) + 1):
            yield self._batch(part)

    def _batch(self, users: Indices) -> tuple[Batch, Indices]:
        events, history = self._events, self._history
        rows, user = _ranges(self._starts, users)
        past, past_user = _ranges(history.starts, users)
        items, (item, past_item) = _places(events.items, events.item[rows], history.item[past])
        # Rows of the history, as places in the batch: those of a user stay neighbours.
        place = np.cumsum(np.diff(history.starts)[users]) - np.diff(history.starts)[users]
        own = self._own[rows]
        own = np.where(own >= 0, own - history.starts[users][user] + place[user], -1)
        tensor = torch.from_numpy
        batch = Batch(
            users=len(users), items=tensor(items), texts=tensor(events.texts[items]),
            item_features=tensor(events.item_features[items]), user_features=tensor(events.user_features[users]),
            context_features=tensor(events.context_features[rows]), user=tensor(user),
            item=tensor(item), own=tensor(own), chosen=tensor(events.chosen[rows].astype(np.float32)),
            weight=tensor(events.weight[rows]), past_user=tensor(past_user), past_item=tensor(past_item),
            past_chosen=tensor(history.chosen[past].astype(np.int64)), past_weight=tensor(history.weight[past]),
        )  # fmt: skip
        return batch, rows


@contextmanager
def _threads_for(events: int) -> Iterator[None]:
    """One thread for batches of few events: handing out their small products takes longer than computing them.

    Beside other work, threads that wait for each other take ten times as long as one.
    """
    threads = torch.get_num_threads()
    if events < _MIN_EVENTS_FOR_THREADS:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _places(total: int, *parts: Indices) -> tuple[Indices, list[Indices]]:
    """The different numbers in `parts`, sorted, and where each number of each part is among them; all below `total`.

    As numpy.unique, without its sort.
    """
    place = np.zeros(total, np.int64)
    for part in parts:
        place[part] = 1
    different = np.flatnonzero(place)
    place[different] = np.arange(len(different))
    return different, [place[part] for part in parts]


def _ranges(starts: Indices, groups: Indices) -> tuple[Indices, Indices]:
    """The rows of the groups, one after another, and for each row the place of its group in `groups`."""
    counts = np.diff(starts)[groups]
    group = np.repeat(np.arange(len(groups)), counts)
    before = np.cumsum(counts) - counts
    return starts[groups][group] + np.arange(len(group)) - before[group], group


def epochs_for(examples: Examples, validation: NDArray[np.bool_], settings: TowerSettings, progress: Progress) -> int:
    """The number of epochs after which towers trained without the `validation` events rank these best."""
    past, judged = examples.only(~validation), examples.only(validation)
    if not 0 < judged.chosen.sum() < len(judged.chosen) or not past.learn.any():
        return settings.max_epochs // 3
    history = history_of(past)
    batches = Batches(judged, history, 100_000)
    best, best_epoch = -np.inf, 1
    members = [Training(past, history, settings, settings.seed + i) for i in range(settings.members)]
    for epoch in range(1, settings.max_epochs + 1):
        progress(epoch - 1, settings.max_epochs)
        for member in members:
            member.run_epoch()
        logits = np.mean([logits_of(member.towers, batches, len(judged.user)) for member in members], axis=0)
        quality = ranking_quality(judged.user, judged.chosen, logits)
        if quality > best:
            best, best_epoch = quality, epoch
        elif epoch - best_epoch >= settings.patience:
            break
    return best_epoch


def ranking_quality(users: Indices, chosen: NDArray[np.bool_], scores: NDArray[Any]) -> float:
    """AUC over all events plus the mean AUC within users: both are what the gate compares."""
    metrics = ranker_metrics(users, chosen, scores)
    return metrics["auc"] + metrics.get("user_auc", 0.5)


@torch.no_grad()
def logits_of(towers: Towers, batches: Batches, events: int) -> NDArray[np.float64]:
    """(events,): the towers' logits, in the order of the events, as a server would give them."""
    towers.eval()
    found = np.empty(events)
    with _threads_for(events):
        for batch, rows in batches.shuffled(None):
            known = towers.has_behaviour[batch.items[batch.item]] > 0
            logits, as_new = towers(batch)
            found[rows] = torch.where(known, logits, as_new).numpy()
    return found


def fit_towers(
    examples: Examples, epochs: int, settings: TowerSettings, progress: Progress, start: Sequence[Towers] = ()
) -> tuple[list[Towers], list[tuple[int, float]]]:
    """The members, trained on all of `examples` for `epochs`, and the first one's losses as (step, loss).

    With `start`, each of these is trained further instead.
    """
    history = history_of(examples)
    members, losses = [], list[tuple[int, float]]()
    count = len(start) or settings.members
    for i in range(count):
        training = Training(
            examples, history, settings, settings.seed + i, start[i] if start else None, anchored=bool(start)
        )
        for epoch in range(epochs):
            progress(i * epochs + epoch, count * epochs)
            loss = training.run_epoch()
            if i == 0:
                losses.append(((epoch + 1) * len(training.batches), loss))
        members.append(training.towers)
    return members, losses


@torch.no_grad()
def new_towers(examples: Examples, settings: TowerSettings) -> Towers:
    """Untrained towers that rank by popularity and by likeness of texts, of which training a few epochs makes more.

    Started at random, the projections would have to unlearn noise, for which small data has too few steps.
    """
    parts = (examples.item_features, examples.user_features, examples.context_features)
    item, user, context = (part.shape[1] for part in parts)
    towers = Towers(examples.items, examples.texts.shape[1], (item, user, context), settings.dimensions)
    learned = examples.only(examples.learn)
    own = learned.weight * learned.chosen
    mean = float(np.clip(own.sum() / learned.weight.sum(), 1e-3, 1 - 1e-3))
    towers.mean_rate.fill_(mean)
    towers.bias.copy_(towers.mean_rate.logit())
    towers.rate_weight.fill_(1.0)
    shown, chosen = (np.bincount(learned.item, part, examples.items) for part in (learned.weight, own))
    share = (chosen + settings.prior * mean) / (shown + settings.prior)
    towers.item_bias.copy_(torch.from_numpy(share).logit() - towers.bias)
    axes = torch.linalg.svd(torch.from_numpy(examples.texts), full_matrices=False).Vh[: settings.dimensions]
    for projection in (towers.item_text, towers.new_item_text, towers.history_text):
        projection.zero_()
        projection[: len(axes)] = settings.likeness * axes
    note_behaviour(towers, examples)
    return towers


def note_behaviour(towers: Towers, examples: Examples) -> None:
    """Note that the items of the examples' learned events have behaviour."""
    towers.has_behaviour[torch.from_numpy(np.unique(examples.item[examples.learn]).astype(np.int64))] = 1.0


class Training:
    """One member in training, from `start` if there is one.

    With `anchored`, the vectors of items are drawn to those of `start`, and not to 0.
    """

    def __init__(
        self,
        examples: Examples,
        history: Histories,
        settings: TowerSettings,
        seed: int,
        start: Towers | None = None,
        *,
        anchored: bool = False,
    ):
        learned = examples.only(examples.learn)
        size = max(settings.min_batch_events, len(learned.user) // settings.steps_per_epoch)
        self.batches = Batches(learned, history, size)
        self._settings, self._seed, self._epoch = settings, seed, 0
        torch.manual_seed(seed)
        self.towers = start or new_towers(examples, settings)
        self._anchors = [part.detach().clone() for part in self._by_item()] if anchored else None
        ids = [self.towers.item_ids, self.towers.history_ids]
        projections = [
            self.towers.item_text, self.towers.text_weight, self.towers.history_text, self.towers.new_item_text,
            self.towers.new_text_weight,
        ]  # fmt: skip
        rest = [*self.towers.feature_vectors, *self.towers.feature_weights]
        self._optimizer = torch.optim.AdamW(
            [
                {"params": ids, "weight_decay": 0.0 if anchored else settings.id_decay},
                {"params": [self.towers.item_bias], "weight_decay": 0.0 if anchored else settings.bias_decay},
                {"params": projections, "weight_decay": settings.projection_decay, "lr": settings.projection_rate},
                {"params": rest, "weight_decay": settings.projection_decay},
                {"params": [self.towers.bias, self.towers.rate_weight], "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
        )

    def _by_item(self) -> list[nn.Parameter]:
        return [self.towers.item_ids, self.towers.history_ids, self.towers.item_bias]

    @torch.no_grad()
    def _draw_to_anchors(self) -> None:
        """Instead of decay: what the champion knows of an item is kept, as far as new events do not contradict it."""
        decays = self._settings.id_decay, self._settings.id_decay, self._settings.bias_decay
        for part, anchor, decay in zip(self._by_item(), self._anchors or (), decays, strict=False):
            part.lerp_(anchor, self._settings.learning_rate * decay)

    def run_epoch(self) -> float:
        """Train on every event once. The mean loss."""
        with _threads_for(self.batches.size):
            return self._run_epoch()

    def _run_epoch(self) -> float:
        self._epoch += 1
        rng = np.random.default_rng((self._seed, self._epoch))
        total, weights = 0.0, 0.0
        self.towers.train()
        for batch in self._batches(rng):
            loss, weight = self._set_gradients(batch)
            self._optimizer.step()
            self._draw_to_anchors()
            total, weights = total + loss, weights + weight
        return total / max(weights, 1e-9)

    def _batches(self, rng: np.random.Generator) -> Iterator[Batch | None]:
        """An epoch's; None where only other workers have one."""
        for batch, _ in self.batches.shuffled(rng):
            yield batch

    def _set_gradients(self, batch: Batch | None) -> tuple[float, float]:
        """Set the gradients to those of the batch's mean loss. The loss of all its events, and their weight."""
        self._optimizer.zero_grad()
        if batch is None:
            return 0.0, 0.0
        logits, as_new = self.towers(batch, self._settings.id_dropout, self._settings.text_dropout)
        loss, loss_as_new = (
            nn.functional.binary_cross_entropy_with_logits(part, batch.chosen, batch.weight, reduction="sum")
            for part in (logits, as_new)
        )
        weight = batch.weight.sum()
        ((loss + loss_as_new) / weight).backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), float(weight)
