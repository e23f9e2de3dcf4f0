"""The words that the steps of curation share: what they know, what they may decide, and how they say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat

from models.data.dataset import Example
from models.feedback.types import Sample
from models.tasks.base import Strict

State = Literal["dropped", "quarantined", "deferred"]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Rules(Strict):
    """What curation may let through. Shares are from 0 to 1, similarity from 0 to 100 as rapidfuzz counts it."""

    trust: dict[str, NonNegativeFloat] = Field({}, description="weight of a source's word, by source")
    default_trust: float = Field(0.5, ge=0, description="weight of a source that is not listed")
    trusted: float = Field(1.0, ge=0, description="from this weight on, no cap on what a source contributes")
    trust_of_corpus: float = Field(1.0, ge=0, description="weight of the training corpus where feedback contradicts it")
    near_duplicate: float = Field(90, ge=50, le=100, description="least similarity of two texts, whatever their order")
    min_new_label: int = Field(10, ge=5, description="different texts a new label needs before it is learned")
    max_share_of_a_source: float = Field(0.5, gt=0, le=1, description="of what is kept, for sources not trusted")
    allowance_of_a_source: int = Field(1000, ge=0, description="samples a source may give whatever their share")
    max_share_of_a_user: float = Field(0.1, gt=0, le=1, description="of what is kept, within sources not trusted")
    allowance_of_a_user: int = Field(200, ge=0, description="samples a user may give whatever their share")
    min_to_suspect: int = Field(30, ge=10, description="fewer samples are not searched for label errors")
    max_good_suspected: float = Field(0.05, gt=0, le=1, description="share of right labels that may be quarantined")
    min_to_judge: int = Field(50, ge=10, description="fewer samples say nothing about their source or user")
    max_suspected: float = Field(0.12, gt=0, le=1, description="share of wrong labels that excludes a source or user")
    replay_a_label: int = Field(50, ge=5, description="corpus texts of each label that feedback is compared with")
    min_replay: int = Field(1500, ge=0, description="corpus texts in all, where the labels are few")

    def trust_of(self, source: str) -> float:
        return self.trust.get(source, self.default_trust)


@dataclass(frozen=True, slots=True)
class Context:
    """What is known when feedback is curated."""

    labels: frozenset[str]
    """the champion's; for rankings the events there are"""
    training: Sequence[Example]
    """all that versions were trained on so far"""
    holdout: Sequence[str]
    """texts that must stay unseen"""
    embed: Embed
    """texts to vectors of shape (texts, dimensions), from a model that was not trained on these texts"""
    redact: Callable[[str], str]
    new_labels: bool = False
    """whether the task learns labels that the champion does not have"""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Samples that say the same. Only `lead` is learned from; the others are its witnesses."""

    lead: Sample
    merged: tuple[Sample, ...] = ()

    @property
    def votes(self) -> tuple[Sample, ...]:
        return (self.lead, *self.merged)


class Decision(NamedTuple):
    """Why a sample is not learned from now. `reason` is counted, `detail` is told beside it."""

    sample: int
    state: State
    reason: str
    detail: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.reason} {self.detail}".strip()


class StepResult(NamedTuple):
    """What a step leaves, and the decisions on the rest."""

    kept: list[Group]
    gone: list[Decision]


Step = Callable[[list[Group], Context, Rules], StepResult]


def sift(groups: Sequence[Group], decide: Callable[[Group], Decision | None]) -> StepResult:
    """Keep the groups on which `decide` decides nothing."""
    kept: list[Group] = []
    gone: list[Decision] = []
    for group in groups:
        decision = decide(group)
        if decision is None:
            kept.append(group)
        else:
            gone.append(decision)
    return StepResult(kept, gone)
