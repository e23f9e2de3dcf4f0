"""The feedback loop: from corrections to a better version."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import dashboard, graph, number, row


def build() -> Dashboard:
    made = dashboard("wheel", "Flywheel: the wheel", "From corrections to a better version.", tasks="all")
    for panel in (
        number(
            "Corrections a day",
            "That were taken.",
            'sum(increase(flywheel_feedback_total{task=~"$task",status=~"accepted|replaced"}[1d]))',
            width=6,
        ),
        number(
            "Waiting",
            "Corrections that the next retraining learns; of servers that share a store once.",
            'sum(max by (task) (flywheel_retraining_samples{task=~"$task"}))',
            width=6,
        ),
        number(
            "Oldest waiting",
            "Of them.",
            'max(flywheel_retraining_oldest_sample_age_seconds{task=~"$task"})',
            unit="s",
            width=6,
            steps=((None, "green"), (7 * 86400, "orange"), (14 * 86400, "red")),
        ),
        number(
            "Retraining since",
            "Of one that runs now.",
            'max(flywheel_retraining_running_seconds{task=~"$task"})',
            unit="s",
            width=6,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("How right are the answers?"))
    for panel in (
        graph(
            "Right by feedback",
            "Share of the judged answers of the last seven days, by version.",
            ('flywheel_online_accuracy{task=~"$task"}', "{{task}} {{version}}"),
            unit="percentunit",
            maximum=1,
        ),
        graph(
            "Judged answers",
            "That this share stands on.",
            ('flywheel_judged_predictions{task=~"$task"}', "{{task}} {{version}}"),
        ),
        graph(
            "Corrected answers",
            "Share of the newest logged answers that users corrected.",
            ('flywheel_corrected_ratio{task=~"$task"}', "{{task}}"),
            unit="percentunit",
        ),
        graph(
            "Drift",
            "Test statistics over their bounds: above 1 the texts have changed.",
            ('flywheel_drift_statistic{task=~"$task"} / flywheel_drift_bound{task=~"$task"}', "{{task}} {{test}}"),
            width=24,
            limit=1,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Corrections"))
    for panel in (
        graph(
            "Feedback",
            "By result.",
            (
                'sum by (task, status) (rate(flywheel_feedback_total{task=~"$task"}[$__rate_interval]))',
                "{{task}} {{status}}",
            ),
        ),
        graph(
            "By state",
            "Of all corrections in the store; of servers that share a store once.",
            ('max by (task, state) (flywheel_corrections{task=~"$task"})', "{{task}} {{state}}"),
        ),
        graph(
            "Waiting, of those needed",
            "The share of learning.min_new_samples that waits: at 1 a retraining starts.",
            (
                'flywheel_retraining_samples{task=~"$task"} / flywheel_retraining_needed_samples{task=~"$task"}',
                "{{task}}",
            ),
            unit="percentunit",
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Retrainings"))
    for panel in (
        graph("Stage", "That runs now.", ('flywheel_retraining_stage{task=~"$task"}', "{{task}} {{stage}}"), maximum=1),
        graph(
            "Ended",
            "By outcome, within a day.",
            (
                'sum by (task, outcome) (increase(flywheel_retrainings_total{task=~"$task"}[1d]))',
                "{{task}} {{outcome}}",
            ),
        ),
        graph(
            "Time that they took",
            "On average, within a day.",
            (
                'sum by (task) (increase(flywheel_retraining_seconds_sum{task=~"$task"}[1d])) '
                '/ sum by (task) (increase(flywheel_retraining_seconds_count{task=~"$task"}[1d]))',
                "{{task}}",
            ),
            unit="s",
        ),
        graph(
            "Time since the last one",
            "By outcome.",
            ('time() - flywheel_last_retraining_timestamp_seconds{task=~"$task"} > 0', "{{task}} {{outcome}}"),
            unit="s",
            width=12,
        ),
        graph(
            "Missing",
            "Predictions that were not logged, and so cannot be corrected, in an hour.",
            (
                'sum by (task, reason) (increase(flywheel_unlogged_predictions_total{task=~"$task"}[1h]))',
                "{{task}} {{reason}}",
            ),
            width=12,
        ),
    ):
        made.with_panel(panel)
    return made
