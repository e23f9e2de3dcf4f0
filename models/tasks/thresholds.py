"""What a Task asks of a candidate before it may serve: the numbers that the gate compares with."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Thresholds(BaseModel):
    """The bounds of models.evaluation.gate. "Points" are hundredths of accuracy, recall, AUC or calibration error.

    A Task names its own as a class variable, `gate = Thresholds(max_latency_ratio=1.5)`. Serving processes import
    this file with the Task, so it stands apart from the statistics. docs/decisions/0013-gate.md says how often a gate
    with these defaults is wrong.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    significance: float = Field(
        0.05, gt=0, lt=0.5, description="chance of a wrong conclusion that each one-sided test may take"
    )
    max_loss: float = Field(
        1.0, ge=0, le=100, description="points of the holdout that a candidate may be seen to lose, whatever it gains"
    )
    margin: float = Field(2.0, gt=0, le=100, description="points of the holdout whose loss the test must rule out")
    margin_with_gain: float = Field(
        3.0, gt=0, le=100, description="the margin of a candidate that is proven better on the newest feedback"
    )
    max_recall_loss: float = Field(
        10.0, ge=0, le=100, description="points of recall that one label may lose, beyond what chance explains"
    )
    min_label_examples: int = Field(
        5, ge=1, description="a label with fewer examples in a set has no say of its own there"
    )
    max_calibration_rise: float = Field(
        3.0, ge=0, le=100, description="points by which the calibration error may rise, beyond what chance explains"
    )
    max_latency_ratio: float = Field(
        1.25, gt=0, description="candidate's time a text over the champion's, in the same process at the same time"
    )
    min_feedback: int = Field(20, ge=1, description="newest feedback texts below which feedback has no say")
