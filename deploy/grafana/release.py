"""Which version serves, how the canary compares with the champion, and what the gate says."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import dashboard, graph, number, row, rows_of


def build() -> Dashboard:
    made = dashboard(
        "release",
        "Flywheel: release and canary",
        "Which version serves, how the canary compares with the champion, what the gate says.",
        tasks="all",
    )
    for panel in (
        rows_of(
            "Releases",
            "Versions with their role and share of the users.",
            'flywheel_release_fraction{task=~"$task"}',
            width=12,
        ),
        graph(
            "Age of the champion",
            "Since it was released.",
            ('time() - flywheel_champion_released_timestamp_seconds{task=~"$task"}', "{{task}}"),
            unit="s",
            width=12,
        ),
        graph(
            "Share of the users",
            "That each version answers.",
            ('flywheel_release_fraction{task=~"$task"}', "{{task}} {{version}} {{role}}"),
            unit="percentunit",
            maximum=1,
        ),
        graph(
            "Predicts by version",
            "Answered by it.",
            (
                'sum by (task, version) (rate(flywheel_requests_total{endpoint=~"predict|infer",task=~"$task"}'
                "[$__rate_interval]))",
                "{{task}} {{version}}",
            ),
            unit="reqps",
        ),
        graph(
            "Replicas by version",
            "That have it in memory.",
            ('sum by (task, version) (flywheel_loaded_replicas{task=~"$task"})', "{{task}} {{version}}"),
        ),
        graph(
            "Moves",
            "Promotions, canaries, shadows, rollbacks within an hour.",
            ('sum by (task, step) (increase(flywheel_moves_total{task=~"$task"}[1h]))', "{{task}} {{step}}"),
            width=12,
        ),
        graph(
            "Answers in shadow",
            "A challenger's answers beside the champion's.",
            (
                'sum by (task, version, result) (rate(flywheel_shadow_texts_total{task=~"$task"}[$__rate_interval]))',
                "{{task}} {{version}} {{result}}",
            ),
            width=12,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Canary: what is compared. Empty without a challenger"))
    for panel in (
        graph(
            "Answers",
            "That the comparison stands on.",
            ('flywheel_canary_requests{task=~"$task"}', "{{task}} {{role}}"),
        ),
        graph(
            "Failed",
            "Share of the answers.",
            ('flywheel_canary_error_ratio{task=~"$task"}', "{{task}} {{role}}"),
            unit="percentunit",
        ),
        graph(
            "Time for a text",
            "Of the encoder.",
            ('flywheel_canary_latency_seconds{task=~"$task"}', "{{task}} {{role}}"),
            unit="s",
        ),
        graph(
            "Right by feedback",
            "Share of the judged answers.",
            (
                'flywheel_canary_accuracy{task=~"$task"} or flywheel_online_accuracy{task=~"$task"}',
                "{{task}} {{role}}{{version}}",
            ),
            unit="percentunit",
            maximum=1,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Gate"))
    for panel in (
        number(
            "Refusals in a row",
            "Of candidates, in the task with most.",
            'max(flywheel_gate_refusals_in_a_row{task=~"$task"})',
            width=8,
            steps=((None, "green"), (1, "orange"), (3, "red")),
        ),
        graph(
            "Checks",
            "Of the gate, since the server started.",
            (
                'sum by (task, check, result) (flywheel_gate_checks_total{task=~"$task"})',
                "{{task}} {{check}} {{result}}",
            ),
            width=16,
        ),
    ):
        made.with_panel(panel)
    return made
