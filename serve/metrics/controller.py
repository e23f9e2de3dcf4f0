"""What the controller knows: releases, retrainings, the gate, canary analysis, drift, accuracy, and the home's disk."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, get_args

from models.retraining.plan import RetrainingOutcome
from serve.metrics.metric import TASK, VERSION, Metric
from serve.metrics.process import ProcessMetrics
from serve.metrics.store import StoreMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OUTCOMES: tuple[str, ...] = get_args(RetrainingOutcome)
STEPS = ("promote", "canary", "shadow", "rollback")
STAGES = (
    "curating", "loading", "reading texts", "choosing the number of epochs", "probing", "training", "finishing",
    "exporting", "judging", "registering",
)  # fmt: skip
DURATIONS = (60.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14400.0, 28800.0, 86400.0)

_OF_TASK = {"task": TASK}
_OF_VERSION = {"task": TASK, "version": VERSION}
_OUTCOME = {"task": TASK, "outcome": ", ".join(OUTCOMES)}
_TEST = {"task": TASK, "test": "lengths (of texts), confidence, early_answers (their share)"}
_ROLE = {"task": TASK, "role": "champion, challenger"}

RELEASE = Metric(
    "flywheel_release_fraction",
    "gauge",
    "Share (0 to 1) of the requests without a version that the version answers; 0 in shadow.",
    {**_OF_VERSION, "role": "champion, canary, shadow"},
)
RELEASED = Metric(
    "flywheel_champion_released_timestamp_seconds",
    "gauge",
    "When the champion became it, in seconds since 1970.",
    _OF_TASK,
)
CONFIGURED = Metric(
    "flywheel_configured_replicas",
    "gauge",
    "Replicas that the configuration asks for, at least (tasks.<task>.replicas; auto: one per core); 0 while unloaded.",
    _OF_TASK,
)
MOVES = Metric(
    "flywheel_moves_total",
    "counter",
    "Moves of versions, by whomever, as the controller sees them in the release.",
    {"task": TASK, "step": "promote, canary, shadow, rollback"},
)
ACCURACY = Metric(
    "flywheel_online_accuracy",
    "gauge",
    "Share (0 to 1) of the labels from users that are the version's own: of the last 7 days and the newest 10,000.",
    _OF_VERSION,
)
JUDGED = Metric(
    "flywheel_judged_predictions", "gauge", "Labels from users on which flywheel_online_accuracy stands.", _OF_VERSION
)
CORRECTED = Metric(
    "flywheel_corrected_ratio",
    "gauge",
    "Share (0 to 1) of the logged answers of the last 7 days whose label users corrected.",
    _OF_TASK,
)
DRIFT = Metric(
    "flywheel_drift_statistic",
    "gauge",
    "Distance (0 to 1) of the newest 1,000 logged texts from the oldest: Kolmogorov-Smirnov, or the fall of a share.",
    _TEST,
)
DRIFT_BOUND = Metric("flywheel_drift_bound", "gauge", "Distance from which on it counts as drift.", _TEST)
SAMPLES = Metric("flywheel_retraining_samples", "gauge", "Corrections that wait for a retraining.", _OF_TASK)
NEEDED = Metric(
    "flywheel_retraining_needed_samples",
    "gauge",
    "New corrections that start one (learning.min_new_samples).",
    _OF_TASK,
)
OLDEST = Metric(
    "flywheel_retraining_oldest_sample_age_seconds",
    "gauge",
    "Age of the oldest correction that waits for a retraining; 0 when none waits.",
    _OF_TASK,
)
CORRECTIONS = Metric(
    "flywheel_corrections",
    "gauge",
    "Corrections in the store, by state.",
    {"task": TASK, "state": "waiting, no_consent, leased, used, dropped, quarantined, dead"},
)
RETRAININGS = Metric(
    "flywheel_retrainings_total", "counter", "Retrainings that the controller ran, by outcome.", _OUTCOME
)
STAGE = Metric(
    "flywheel_retraining_stage",
    "gauge",
    "1 for the stage that a retraining is in, 0 for the others.",
    {"task": TASK, "stage": ", ".join(STAGES)},
)
RUNNING = Metric(
    "flywheel_retraining_running_seconds", "gauge", "Time since the retraining began; 0 when none runs.", _OF_TASK
)
SECONDS = Metric(
    "flywheel_retraining_seconds",
    "histogram",
    "Time of a retraining that the controller ran and that came as far as a candidate, or failed.",
    _OF_TASK,
    DURATIONS,
)
LAST = Metric(
    "flywheel_last_retraining_timestamp_seconds",
    "gauge",
    "When the last retraining with this outcome ended, in seconds since 1970; of the audit log's newest 100 entries.",
    _OUTCOME,
)
GATE = Metric(
    "flywheel_gate_checks_total",
    "counter",
    "Checks of the gate on candidates of the controller's retrainings.",
    {"task": TASK, "check": "a check of the gate (docs/decisions/0013-gate.md)", "result": "passed, failed"},
)
REFUSALS = Metric(
    "flywheel_gate_refusals_in_a_row",
    "gauge",
    "Candidates that the gate has refused since it last accepted one; of the audit log's newest 100 entries.",
    _OF_TASK,
)
CANARY_REQUESTS = Metric(
    "flywheel_canary_requests",
    "gauge",
    "Answers since the challenger's stage began, with which canary analysis compares it and the champion. No series "
    "without a challenger.",
    _ROLE,
)
CANARY_ERRORS = Metric(
    "flywheel_canary_error_ratio", "gauge", "Share (0 to 1) of these answers that failed (500, 504).", _ROLE
)
CANARY_LATENCY = Metric(
    "flywheel_canary_latency_seconds", "gauge", "Time of the encoder per text, for these answers.", _ROLE
)
CANARY_ACCURACY = Metric(
    "flywheel_canary_accuracy",
    "gauge",
    "Share (0 to 1) of the users' labels since then that are the version's own. No series without any.",
    _ROLE,
)
CANARY = (CANARY_REQUESTS, CANARY_ERRORS, CANARY_LATENCY, CANARY_ACCURACY)
HOME_FREE = Metric("flywheel_home_free_bytes", "gauge", "Free space of the file system with FLYWHEEL_HOME.")
HOME_SIZE = Metric("flywheel_home_size_bytes", "gauge", "Size of the file system with FLYWHEEL_HOME.")
METRICS = (
    RELEASE, RELEASED, CONFIGURED, MOVES, ACCURACY, JUDGED, CORRECTED, DRIFT, DRIFT_BOUND, SAMPLES, NEEDED, OLDEST,
    CORRECTIONS, RETRAININGS, STAGE, RUNNING, SECONDS, LAST, GATE, REFUSALS, *CANARY, HOME_FREE, HOME_SIZE,
)  # fmt: skip


class LoopMetrics:
    """The collectors of the server's controller loop. `registry` is for tests; the default is the process's."""

    def __init__(self, registry: CollectorRegistry | None = None, tasks: Collection[str] = ()):
        """Counters of `tasks` are there from the start: `increase` does not see a series' first count."""
        self._collectors = {metric: metric.collector(registry) for metric in METRICS}
        self._set: dict[tuple[Metric, str], set[tuple[str, ...]]] = {}
        self.store = StoreMetrics(registry)
        ProcessMetrics("control", registry)
        for task in tasks:
            for outcome in OUTCOMES:
                self._collectors[RETRAININGS].labels(task, outcome)
            for step in STEPS:
                self._collectors[MOVES].labels(task, step)
            self._collectors[SECONDS].labels(task)

    def set(self, metric: Metric, task: str, values: Mapping[Any, float] | float | None) -> None:
        """Set a gauge of `task`: by its other labels (a tuple), or its only value. Other series of it are removed."""
        if values is None:
            values = {}
        elif not isinstance(values, Mapping):
            values = {(): values}
        gauge: Any = self._collectors[metric]
        for labels in self._set.get((metric, task), set()) - values.keys():
            gauge.remove(task, *labels)
        for labels, value in values.items():
            gauge.labels(task, *labels).set(value)
        self._set[metric, task] = set(values)

    def home(self, free: float, size: float) -> None:
        """Set the bytes of the home's file system."""
        self._collectors[HOME_FREE].set(free)
        self._collectors[HOME_SIZE].set(size)

    def retraining(self, task: str, outcome: str, seconds: float) -> None:
        self._collectors[RETRAININGS].labels(task, outcome).inc()
        if outcome not in ("too_few", "busy"):
            self._collectors[SECONDS].labels(task).observe(seconds)

    def gate(self, task: str, checks: Mapping[str, bool]) -> None:
        """Count the checks on a candidate: whether each passed."""
        for check, passed in checks.items():
            for result, counted in (("passed", passed), ("failed", not passed)):
                self._collectors[GATE].labels(task, check, result).inc(counted)

    def move(self, task: str, step: str) -> None:
        self._collectors[MOVES].labels(task, step).inc()
