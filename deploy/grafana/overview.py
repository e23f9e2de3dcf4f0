"""The whole server on a page: is it well, how much does it do, what is at its limit."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import dashboard, graph, number, quantiles, row, rows_of

_PREDICTS = 'endpoint=~"predict|infer",task=~"$task"'
_BUDGET = ((None, "red"), (0.0, "orange"), (0.25, "green"))


def build() -> Dashboard:
    made = dashboard("overview", "Flywheel: overview", "Is the server well, and what is at its limit?", tasks="all")
    for panel in (
        number(
            "Servers that answer",
            "Scrapes that succeed now.",
            'sum(up{job="flywheel"})',
            steps=((None, "red"), (1, "green")),
        ),
        number(
            "Alerts",
            "Alerts that fire now.",
            'count(ALERTS{alertstate="firing",severity!="info"}) or vector(0)',
            steps=((None, "green"), (1, "red")),
        ),
        number(
            "Predicts a second",
            "Of all tasks chosen.",
            'sum(task:flywheel_predicts:rate5m{task=~"$task"})',
            unit="reqps",
        ),
        number(
            "Failed",
            "Share of predicts with a 5xx in five minutes; the objective is 0.1 % of 30 days.",
            'max(task:flywheel_predicts_failed:ratio5m{task=~"$task"})',
            unit="percentunit",
            steps=((None, "green"), (0.001, "orange"), (0.0144, "red")),
        ),
        number(
            "Budget of availability",
            "What is left of the error budget of 30 days, of the worst task.",
            'min(task:flywheel_availability_budget:ratio30d{task=~"$task"})',
            unit="percentunit",
            steps=_BUDGET,
        ),
        number(
            "Budget of latency",
            "What is left of the budget of answers slower than 0.25 s, of the worst task.",
            'min(task:flywheel_latency_budget:ratio30d{task=~"$task"})',
            unit="percentunit",
            steps=_BUDGET,
        ),
        rows_of(
            "Alerts that fire",
            "Each has its section in docs/runbook.md.",
            'ALERTS{alertstate="firing"} or label_replace(vector(0), "alertname", "none", "", "")',
            height=5,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Requests"))
    for panel in (
        graph(
            "Predicts",
            "Requests to predict and infer.",
            ('task:flywheel_predicts:rate5m{task=~"$task"}', "{{task}}"),
            unit="reqps",
            stacked=True,
        ),
        graph(
            "By status code",
            "Of predicts and feedback. A 503 is a refusal: overloaded, or not ready. HAProxy's: no replica answered.",
            ('sum by (code) (rate(flywheel_requests_total{task=~"$task"}[$__rate_interval]))', "{{code}}"),
            (
                'sum by (reason) (rate(flywheel_unanswered_requests_total{task=~"$task"}[$__rate_interval]))',
                "HAProxy: {{reason}}",
            ),
            unit="reqps",
        ),
        graph(
            "Failed predicts",
            "Share with a 5xx. Above the line the budget of 30 days is spent in two days.",
            ('task:flywheel_predicts_failed:ratio5m{task=~"$task"}', "{{task}} 5 min"),
            ('task:flywheel_predicts_failed:ratio1h{task=~"$task"}', "{{task}} 1 h"),
            ("14.4 * (1 - flywheel:availability:objective)", "line"),
            unit="percentunit",
        ),
        graph(
            "Latency",
            "From a request's headers to its answer, without refusals.",
            *quantiles("flywheel_request_latency_seconds", _PREDICTS, "task", "{{task}}", 0.5, 0.99),
            unit="s",
        ),
        graph(
            "Answers slower than 0.25 s",
            "Share of the answered predicts. Above the line the budget is spent in two days.",
            ('task:flywheel_predicts_slow:ratio5m{task=~"$task"}', "{{task}} 5 min"),
            ('task:flywheel_predicts_slow:ratio1h{task=~"$task"}', "{{task}} 1 h"),
            ("14.4 * (1 - flywheel:latency:objective)", "line"),
            unit="percentunit",
        ),
        graph(
            "Texts",
            "Answered texts, by the last reader: linear (early) or encoder.",
            (
                'sum by (task, stage) (rate(flywheel_texts_total{task=~"$task"}[$__rate_interval]))',
                "{{task}} {{stage}}",
            ),
            unit="short",
            stacked=True,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Load"))
    for panel in (
        graph(
            "Backlog",
            "Work that waits for the model, in seconds of model time, in the fullest replica. From 1 s on "
            "(limits.wait_s) requests are refused.",
            ('max by (task) (flywheel_backlog_seconds{task=~"$task"})', "{{task}}"),
            unit="s",
            limit=1,
        ),
        graph(
            "Waiting texts", "In all replicas.", ('sum by (task) (flywheel_waiting_texts{task=~"$task"})', "{{task}}")
        ),
        graph(
            "Oldest waiting text",
            "In the replica with the oldest.",
            ('max by (task) (flywheel_oldest_waiting_seconds{task=~"$task"})', "{{task}}"),
            unit="s",
        ),
        graph(
            "Dropped texts",
            "Never reached the model: overloaded, expired, cancelled.",
            (
                'sum by (task, reason) (rate(flywheel_dropped_texts_total{task=~"$task"}[$__rate_interval]))',
                "{{task}} {{reason}}",
            ),
        ),
        graph(
            "Model busy",
            "Share of the time in which a replica's model runs.",
            (
                'sum by (task) (rate(flywheel_stage_seconds_sum{stage="infer",task=~"$task"}[$__rate_interval])) '
                '/ sum by (task) (max by (instance, task) (flywheel_loaded_replicas{task=~"$task"} > 0))',
                "{{task}}",
            ),
            unit="percentunit",
        ),
        graph(
            "Cache",
            "Share of the texts whose output was cached or just being computed.",
            (
                'sum by (task) (rate(flywheel_cache_texts_total{result!="miss",task=~"$task"}[$__rate_interval])) '
                '/ sum by (task) (rate(flywheel_cache_texts_total{task=~"$task"}[$__rate_interval]))',
                "{{task}}",
            ),
            unit="percentunit",
            maximum=1,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Processes, disk, store"))
    for panel in (
        graph(
            "Replicas",
            "With the champion in memory, and as many as are configured.",
            ('sum by (task) (instance_task:flywheel_champion_replicas:max{task=~"$task"})', "{{task}}"),
            ('sum by (task) (flywheel_configured_replicas{task=~"$task"})', "{{task}} configured"),
        ),
        graph(
            "Starts of replicas",
            "In an hour. More than there are replicas: they end and start again.",
            ('sum by (task) (increase(flywheel_replica_starts_total{task=~"$task"}[1h]))', "{{task}}"),
        ),
        graph(
            "Memory",
            "Resident, of the replicas of a task and of the control application; Ray and HAProxy have more.",
            ("sum by (process) (flywheel_process_resident_memory_bytes)", "{{process}}"),
            unit="bytes",
            stacked=True,
        ),
        graph(
            "Cores in use",
            "By the replicas of a task and by the control application; Ray and HAProxy have more.",
            ("sum by (process) (rate(flywheel_process_cpu_seconds_total[$__rate_interval]))", "{{process}}"),
            stacked=True,
        ),
        graph(
            "File descriptors",
            "Share of the limit, in the process with the most.",
            ("max by (process) (flywheel_process_open_fds / flywheel_process_max_fds)", "{{process}}"),
            unit="percentunit",
            limit=0.8,
        ),
        graph(
            "Disk",
            "Where FLYWHEEL_HOME lies.",
            ("flywheel_home_free_bytes", "free {{instance}}"),
            ("flywheel_home_size_bytes", "size {{instance}}"),
            unit="bytes",
        ),
        graph(
            "Store: time of an operation",
            "Of corrections, the prediction log, the queue.",
            *quantiles("flywheel_store_operation_seconds", "", "operation", "{{operation}}", 0.5, 0.99),
            unit="s",
        ),
        graph(
            "Store: errors",
            "Operations that failed.",
            ("sum by (operation) (rate(flywheel_store_errors_total[$__rate_interval]))", "{{operation}}"),
            unit="ops",
        ),
        rows_of("Software", "Of each server.", "flywheel_build_info", width=8, height=8),
    ):
        made.with_panel(panel)
    return made
