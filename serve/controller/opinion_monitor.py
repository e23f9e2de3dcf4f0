"""Puts opinion monitoring together: counting, surges, metrics and the webhook, for the controller's loop."""

from __future__ import annotations

from models.feedback.store import Store
from models.feedback.store.opinion import Absorbed
from serve.config import Config
from serve.controller.alert_outbox import AlertOutbox
from serve.controller.opinion import OpinionReconciler
from serve.controller.surges import SurgeReconciler
from serve.controller.webhook import Outcome, Webhook
from serve.metrics import OpinionMetrics

_LABELS = ("positive", "neutral", "negative")


def opinion_metrics(config: Config) -> OpinionMetrics | None:
    """The collectors of this process for the topics of the configuration; None if no opinions are monitored."""
    return OpinionMetrics(config.opinion_topics, _LABELS) if config.opinion.task in config.tasks else None


class OpinionMonitor:
    """One task's opinion monitoring. `metrics` None: nothing is shown."""

    def __init__(self, config: Config, store: Store, metrics: OpinionMetrics | None = None):
        opinion, self._metrics = config.opinion, metrics
        receiver = opinion.webhook.receiver
        self._webhook = None
        if receiver is not None:
            self._webhook = Webhook(receiver, AlertOutbox(opinion, store), config.server.url, self._sent)
        surges = SurgeReconciler(opinion, store, metrics, self._notify)
        self._reconciler = OpinionReconciler(opinion, store, self._counted, surges.step)

    def start(self) -> None:
        """Start the webhook's thread, which ends with `stop` or with the process."""
        if self._webhook is not None:
            self._webhook.start()

    def stop(self) -> None:
        """Send nothing more. Does not wait."""
        if self._webhook is not None:
            self._webhook.stop()

    def step(self) -> None:
        """Count and evaluate what waits. Raises StoreError; the next step goes on."""
        self._reconciler.step()

    @property
    def behind(self) -> bool:
        return self._reconciler.behind

    def _counted(self, absorbed: Absorbed) -> None:
        if self._metrics is None:
            return
        for document in absorbed.counted:
            self._metrics.text(document.topics, document.label)
        for topics, label in absorbed.begun:
            self._metrics.story(topics, label)

    def _notify(self) -> None:
        if self._webhook is not None:
            self._webhook.notify()

    def _sent(self, outcome: Outcome) -> None:
        if self._metrics is not None:
            self._metrics.webhook(outcome)
