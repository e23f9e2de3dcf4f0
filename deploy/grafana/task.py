"""One task: what it is asked, what it answers, and where the time goes."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import dashboard, graph, quantiles, row, rows_of

_TASK = 'task="$task"'


def build() -> Dashboard:
    made = dashboard(
        "task", "Flywheel: one task", "What a task is asked, what it answers, where the time goes.", tasks="one"
    )
    made.with_row(row("Requests"))
    for panel in (
        graph(
            "By version",
            "Which version answers.",
            (
                'sum by (version) (rate(flywheel_requests_total{task="$task"}[$__rate_interval]))',
                "version {{version}}",
            ),
            unit="reqps",
            stacked=True,
        ),
        graph(
            "By endpoint and code",
            "predict, infer and feedback.",
            (
                'sum by (endpoint, code) (rate(flywheel_requests_total{task="$task"}[$__rate_interval]))',
                "{{endpoint}} {{code}}",
            ),
            unit="reqps",
        ),
        graph(
            "Latency",
            "From a request's headers to its answer, without refusals.",
            *quantiles("flywheel_request_latency_seconds", _TASK, "endpoint", "{{endpoint}}", 0.5, 0.95, 0.99),
            unit="s",
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Where the time goes"))
    for panel in (
        graph(
            "Stages, on average",
            "Of a request: tokenize, decode. Of a batch: queue (its oldest text), infer.",
            (
                'sum by (stage) (rate(flywheel_stage_seconds_sum{task="$task"}[$__rate_interval])) '
                '/ sum by (stage) (rate(flywheel_stage_seconds_count{task="$task"}[$__rate_interval]))',
                "{{stage}}",
            ),
            unit="s",
        ),
        graph(
            "Stages, 99 of 100",
            "The time that one of a hundred exceeds.",
            *quantiles("flywheel_stage_seconds", _TASK, "stage", "{{stage}}", 0.99),
            unit="s",
        ),
        graph(
            "Batches",
            "Texts in one run of the model: mean, and the size that one of 20 exceeds.",
            (
                'sum(rate(flywheel_batch_size_sum{task="$task"}[$__rate_interval])) '
                '/ sum(rate(flywheel_batch_size_count{task="$task"}[$__rate_interval]))',
                "mean",
            ),
            (
                "histogram_quantile(0.95, sum by (le) "
                '(rate(flywheel_batch_size_bucket{task="$task"}[$__rate_interval])))',
                "p95",
            ),
        ),
        graph(
            "Padding",
            "Share of the tokens that only fill a batch up to its longest text: not computed where padding is skipped.",
            (
                'sum(rate(flywheel_batch_tokens_total{task="$task",kind="padding"}[$__rate_interval])) '
                '/ sum(rate(flywheel_batch_tokens_total{task="$task"}[$__rate_interval]))',
                "padding",
            ),
            unit="percentunit",
            maximum=1,
        ),
        graph(
            "Readers",
            "Texts by the last reader that they needed.",
            ('sum by (stage) (rate(flywheel_texts_total{task="$task"}[$__rate_interval]))', "{{stage}}"),
            stacked=True,
        ),
        graph(
            "Cache",
            "Texts by the source of their output: cached (hit), in flight (joined), the model (miss).",
            ('sum by (result) (rate(flywheel_cache_texts_total{task="$task"}[$__rate_interval]))', "{{result}}"),
            stacked=True,
        ),
        graph(
            "Queue",
            "Texts that wait, and since when the oldest does.",
            ('sum(flywheel_waiting_texts{task="$task"})', "texts"),
            ('max(flywheel_oldest_waiting_seconds{task="$task"})', "oldest, s"),
        ),
        graph(
            "Dropped texts",
            "They never reached the model.",
            ('sum by (reason) (rate(flywheel_dropped_texts_total{task="$task"}[$__rate_interval]))', "{{reason}}"),
        ),
        graph(
            "Prediction log",
            "How far it is behind, and predictions that are missing in it.",
            ('max(flywheel_prediction_log_lag_seconds{task="$task"})', "behind, s"),
            (
                'sum by (reason) (rate(flywheel_unlogged_predictions_total{task="$task"}[$__rate_interval]))',
                "missing a second: {{reason}}",
            ),
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("What it answers"))
    for panel in (
        graph(
            "Labels",
            "The 12 most frequent predicted labels.",
            (
                'topk(12, sum by (label) (rate(flywheel_predictions_total{task="$task"}[$__rate_interval])))',
                "{{label}}",
            ),
            width=12,
            stacked=True,
        ),
        graph(
            "Confidence",
            "Shares of the predictions.",
            (
                'sum by (confidence) (rate(flywheel_prediction_confidence_total{task="$task"}[$__rate_interval])) '
                "/ on () group_left () "
                'sum(rate(flywheel_prediction_confidence_total{task="$task"}[$__rate_interval]))',
                "{{confidence}}",
            ),
            unit="percentunit",
            width=12,
            stacked=True,
            maximum=1,
        ),
        graph(
            "Handed off",
            "Share of the predictions that go to a person, by reason.",
            (
                'sum by (reason) (rate(flywheel_handoffs_total{task="$task"}[$__rate_interval])) '
                '/ on () group_left () sum(rate(flywheel_predictions_total{task="$task"}[$__rate_interval]))',
                "{{reason}}",
            ),
            unit="percentunit",
            width=12,
        ),
        graph(
            "Scores",
            "Of the predicted labels: median, and the score that nine of ten exceed.",
            *quantiles("flywheel_prediction_score", _TASK, "version", "version {{version}}", 0.1, 0.5),
            unit="percentunit",
            width=12,
            maximum=1,
        ),
        rows_of(
            "Versions in memory",
            "With provider, precision and time of the export.",
            'flywheel_model_info{task="$task"}',
        ),
    ):
        made.with_panel(panel)
    return made
