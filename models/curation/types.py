"""Types of the curation steps: rules, context, groups of samples, decisions."""

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

CurationState = Literal["dropped", "quarantined", "deferred"]
Embed = Callable[[Sequence[str]], NDArray[np.float32]]


class Rules(Strict):
    """The limits of curation. Shares are from 0 to 1, similarity is rapidfuzz's ratio, from 0 to 100."""

    trust: dict[str, NonNegativeFloat] = Field({}, description="weight of a source's votes, by source")
    default_trust: float = Field(0.5, ge=0, description="weight of a source that is not listed")
    trusted: float = Field(1.0, ge=0, description="sources of at least this weight have no quota")
    trust_of_corpus: float = Field(1.0, ge=0, description="weight of the training corpus when feedback contradicts it")
    near_duplicate: float = Field(
        90, ge=50, le=100, description="minimum similarity of near duplicates, word order ignored"
    )
    min_new_label: int = Field(10, ge=5, description="distinct texts that a new label needs before it is learned")
    max_share_of_a_source: float = Field(0.5, gt=0, le=1, description="of what is kept, for sources not trusted")
    allowance_of_a_source: int = Field(1000, ge=0, description="samples a source may contribute whatever their share")
    max_share_of_a_user: float = Field(0.1, gt=0, le=1, description="of what is kept, within sources not trusted")
    allowance_of_a_user: int = Field(200, ge=0, description="samples a user may contribute whatever their share")
    min_to_suspect: int = Field(30, ge=10, description="with fewer samples, no search for label errors")
    max_good_suspected: float = Field(0.05, gt=0, le=1, description="share of correct labels that may be quarantined")
    min_to_judge: int = Field(50, ge=10, description="with fewer samples, a source or user is not judged")
    max_suspected: float = Field(0.12, gt=0, le=1, description="share of wrong labels that excludes a source or user")
    replay_a_label: int = Field(50, ge=5, description="corpus texts of each label that feedback is compared with")
    min_replay: int = Field(1500, ge=0, description="corpus texts in all, where the labels are few")

    second_pass: Literal["presidio"] | None = Field(
        None, description="a second search for personal data in the texts that are learned"
    )
    second_pass_model: str = Field("en_core_web_sm", min_length=1, description="the language model of spaCy for it")

    def trust_of(self, source: str) -> float:
        return self.trust.get(source, self.default_trust)


@dataclass(frozen=True, slots=True)
class Context:
    """What the steps compare feedback with."""

    labels: frozenset[str]
    """the champion's labels; for rankings, the possible events"""
    training: Sequence[Example]
    """the corpus and the corrections that the champion was trained on"""
    holdout: Sequence[str]
    """texts that must not be trained on"""
    embed: Embed
    """texts to vectors, (texts, dimensions), by a model that was not trained on these texts"""
    redact: Callable[[str], str]
    new_labels: bool = False
    """whether the task learns labels that the champion does not have"""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """Samples with the same label for the same text. Only `lead` is learned; the merged ones count as votes for it."""

    lead: Sample
    merged: tuple[Sample, ...] = ()

    @property
    def votes(self) -> tuple[Sample, ...]:
        return (self.lead, *self.merged)


class Decision(NamedTuple):
    """Why a sample is not learned in this run. `reason` is one of a fixed set, which the report counts."""

    sample: int
    state: CurationState
    reason: str
    detail: str = ""

    @property
    def sentence(self) -> str:
        return f"{self.reason} {self.detail}".strip()


class StepResult(NamedTuple):
    """The groups that a step keeps, and its decisions on the others."""

    kept: list[Group]
    removed: list[Decision]


CurationStep = Callable[[list[Group], Context, Rules], StepResult]


def filter_groups(groups: Sequence[Group], decide: Callable[[Group], Decision | None]) -> StepResult:
    """Keep the groups for which `decide` returns None."""
    kept: list[Group] = []
    removed: list[Decision] = []
    for group in groups:
        decision = decide(group)
        if decision is None:
            kept.append(group)
        else:
            removed.append(decision)
    return StepResult(kept, removed)
