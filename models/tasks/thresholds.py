"""The thresholds of the gate, by which a task decides whether a candidate may serve."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Thresholds(BaseModel):
    """The thresholds of models.evaluation.gate. "Points" are hundredths of accuracy, recall, AUC or calibration error.

    A Task sets its own in a class variable, `gate = Thresholds(max_latency_ratio=1.5)`. Serving processes import this
    file with the Task, so it does not import the statistics. docs/decisions/0013-gate.md has its error rates with these
    defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    significance: float = Field(0.05, gt=0, lt=0.5, description="significance level of each one-sided test")
    max_loss: float = Field(
        1.0, ge=0, le=100, description="points of observed loss on the holdout, whatever the gain on feedback"
    )
    margin: float = Field(2.0, gt=0, le=100, description="points of loss on the holdout that the test must rule out")
    margin_with_gain: float = Field(
        3.0, gt=0, le=100, description="the margin for a candidate that is significantly better on the newest feedback"
    )
    max_recall_loss: float = Field(
        10.0, ge=0, le=100, description="points of recall that one label may lose, unless chance explains the loss"
    )
    min_label_examples: int = Field(5, ge=1, description="labels with fewer examples in a set are not checked there")
    max_calibration_rise: float = Field(
        3.0, ge=0, le=100, description="points by which the calibration error may rise, unless chance explains the rise"
    )
    max_latency_ratio: float = Field(
        1.25, gt=0, description="candidate's latency a text over the champion's, measured in turn in one process"
    )
    max_early_difference: float = Field(
        2.0,
        ge=0,
        le=100,
        description="hundredths of the early answers that may have another label than the blend's, unless by chance",
    )
    min_feedback: int = Field(20, ge=1, description="with fewer held-out feedback texts, feedback is not checked")
