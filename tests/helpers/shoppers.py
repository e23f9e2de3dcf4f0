"""Users of the seed shop who ask for rankings and choose as the simulation says, so that the truth is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from models.data.interaction_files import load_interactions
from models.data.seed import simulate
from models.evaluation.off_policy import discounts
from models.tasks.ranking_policy import rank
from models.tasks.recommendation import RankRequest, Recommendation

CANDIDATES, SHOWN = 20, 3
_DRAWS = 200  # of a version's order, for its true value


@dataclass(frozen=True)
class Shoppers:
    """`chances`: (users, items), the probability that a user clicks an item that is shown."""

    chances: NDArray[np.float64]
    items: tuple[str, ...]
    texts: dict[str, str]
    histories: tuple[tuple[dict[str, str], ...], ...]

    @classmethod
    def of_seed(cls) -> Self:
        """All users of the seed shop, with their training events as history."""
        rng = np.random.default_rng(simulate.SEED)
        world, users, shown = simulate.make_shop(rng)
        noise = rng.gumbel(0.0, simulate.NOISE, len(shown.utility))
        intercept = simulate.solve_intercept(shown.utility + noise, simulate.POSITIVE_SHARE)
        utilities = np.array([simulate.utilities(user, world) for user in users])
        some = np.quantile(noise, np.linspace(0.005, 0.995, 100))
        chances = np.mean([simulate.logistic(utilities + intercept + one) for one in some], axis=0)
        interactions = load_interactions()
        events, histories = interactions.events, []
        for _, rows in events.users():
            kept = np.arange(rows.start, rows.stop)[events.training[rows]]
            histories.append(
                tuple(
                    {
                        "id": interactions.item_names[events.item[row]],
                        "event": "click" if events.chosen[row] else "view",
                    }
                    for row in kept.tolist()
                )
            )
        assert interactions.user_names[0] == "u001"
        texts = dict(zip(interactions.item_names, interactions.texts, strict=True))
        return cls(chances, world.ids, texts, tuple(histories))

    def request(self, user: int, explore: float, draw: np.random.Generator) -> dict[str, Any]:
        """Which of `CANDIDATES` items that the user has not seen to show."""
        seen = {item["id"] for item in self.histories[user]}
        unseen = [item for item in self.items if item not in seen]
        drawn = [str(item) for item in draw.choice(unseen, CANDIDATES, replace=False)]
        return {
            "user": {"id": f"u{user + 1:03}", "history": list(self.histories[user])},
            "candidates": [{"id": item, "text": self.texts[item]} for item in drawn],
            "explore": explore,
            "top_k": SHOWN,
        }

    def chance(self, user: int, item: str) -> float:
        return float(self.chances[user, self.items.index(item)])

    def value(self, task: Recommendation, asked: list[tuple[int, dict[str, Any]]], draw: np.random.Generator) -> float:
        """The true value of the version of `task`, answering these requests of users, by many draws of its order."""
        total = 0.0
        for user, body in asked:
            candidates, logits, vectors = task.scored(RankRequest.model_validate(body), np.zeros((0, 0), np.float32))
            chances = np.array([self.chance(user, candidate.id) for candidate in candidates])
            for _ in range(_DRAWS):
                order, _ = rank(logits, vectors, SHOWN, explore=body["explore"], rng=draw)
                total += float(chances[order] @ discounts(SHOWN))
        return total / _DRAWS / len(asked)
