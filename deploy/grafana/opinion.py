"""Opinion monitoring: stories by topic, and surges of negative ones."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard
from panels import dashboard, graph, number, row


def build() -> Dashboard:
    made = dashboard("opinion", "Flywheel: opinion", "Stories by topic, and surges of negative ones.", topics=True)
    for panel in (
        number(
            "Topics that surge",
            "Of negative stories, now.",
            'sum(flywheel_opinion_alert_active{topic=~"$topic"})',
            width=8,
            steps=((None, "green"), (1, "red")),
        ),
        number(
            "Stories in an hour",
            "Near copies count once.",
            'sum(increase(flywheel_opinion_stories_total{topic=~"$topic"}[1h]))',
            width=8,
            decimals=0,
        ),
        number(
            "Negative, of these",
            "Share of the stories of an hour.",
            'sum(increase(flywheel_opinion_stories_total{topic=~"$topic",label="negative"}[1h])) '
            '/ sum(increase(flywheel_opinion_stories_total{topic=~"$topic"}[1h]))',
            unit="percentunit",
            width=8,
        ),
    ):
        made.with_panel(panel)
    made.with_row(row("Topics"))
    for panel in (
        graph(
            "Stories",
            "In an hour; the 12 topics with most.",
            ('topk(12, sum by (topic) (increase(flywheel_opinion_stories_total{topic=~"$topic"}[1h])))', "{{topic}}"),
            width=12,
            stacked=True,
        ),
        graph(
            "Negative stories",
            "In an hour; the 12 topics with most.",
            (
                "topk(12, sum by (topic) "
                '(increase(flywheel_opinion_stories_total{topic=~"$topic",label="negative"}[1h])))',
                "{{topic}}",
            ),
            width=12,
        ),
        graph(
            "Observed and expected",
            "Negative stories of the newest step, and what the topic's own weeks let expect.",
            ('topk(5, flywheel_opinion_observed_negative{topic=~"$topic"})', "{{topic}} observed"),
            ('topk(5, flywheel_opinion_expected_negative{topic=~"$topic"})', "{{topic}} expected"),
            width=12,
        ),
        graph(
            "Surges",
            "1 while negative stories surge.",
            ('flywheel_opinion_alert_active{topic=~"$topic"}', "{{topic}}"),
            width=12,
            maximum=1,
        ),
        graph(
            "Texts",
            "In an hour, with near copies, by label.",
            ('sum by (label) (increase(flywheel_opinion_texts_total{topic=~"$topic"}[1h]))', "{{label}}"),
            stacked=True,
        ),
        graph(
            "Webhook",
            "Messages in an hour, by outcome.",
            ("sum by (outcome) (increase(flywheel_opinion_webhook_total[1h]))", "{{outcome}}"),
        ),
        graph(
            "Missing texts",
            "Texts in an hour that were answered and not counted, by reason.",
            ("sum by (task, reason) (increase(flywheel_uncounted_documents_total[1h]))", "{{task}} {{reason}}"),
        ),
    ):
        made.with_panel(panel)
    return made
