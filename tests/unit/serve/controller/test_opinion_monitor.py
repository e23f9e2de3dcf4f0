"""Opinion monitoring as the controller runs it: from documents that wait to metrics and to a receiver of alerts."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from models.feedback.store import Store
from serve.config import Config
from serve.controller.opinion_monitor import OpinionMonitor
from serve.metrics import OpinionMetrics
from tests.helpers.opinion import new_document, send
from tests.helpers.waiting import eventually


def test_a_surge_is_counted_shown_and_sent(tmp_path: Path) -> None:
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    topics = tmp_path / "topics.yaml"
    topics.write_text("airlines: [airline]\n")
    config = Config(
        home=tmp_path,
        tasks={"sentiment": {"options": {"topics": str(topics)}}},
        opinion={"webhook": {"url": f"http://127.0.0.1:{server.server_port}/alerts"}},
    )
    assert config.opinion_topics == ("airlines",)
    store, registry = Store(f"sqlite:///{tmp_path / 'feedback.db'}"), CollectorRegistry()
    monitor = OpinionMonitor(config, store, OpinionMetrics(config.opinion_topics, ["negative"], registry))
    monitor.start()
    now = datetime.now(UTC)
    quiet = [
        new_document(f"line {hour} of the day", published=now - timedelta(hours=hour), label="neutral")
        for hour in range(1, 100)
    ]
    send(store, *quiet, *(new_document(f"line {i} of the night", f"bad {i}", published=now) for i in range(12)))
    send(store, new_document("UPDATE 1-line 3 of the night", published=now))
    monitor.step()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"flywheel_opinion_{name}", {"topic": "airlines", **labels})

    assert value("texts_total", label="negative") == 13
    assert value("stories_total", label="negative") == 12
    assert value("alert_active") == 1
    eventually(lambda: not store.opinion_alerts.pending("sentiment"), 10)
    eventually(lambda: registry.get_sample_value("flywheel_opinion_webhook_total", {"outcome": "sent"}) == 1, 10)
    monitor.stop()
    server.shutdown()
    server.server_close()
    (message,) = received
    assert (message["status"], message["commonLabels"]["topic"]) == ("firing", "airlines")
    assert message["commonAnnotations"]["examples"].startswith("bad 0, bad 1")
    store.close()
