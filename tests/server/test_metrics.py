"""GET /metrics of a real server: what it says of answers and processes, and what clients cannot put into it."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from urllib.parse import quote
from uuid import uuid4

import pytest

from serve.metrics.catalogue import BY_FAMILY
from tests.helpers.contract import TASKS
from tests.helpers.server import Server, ask_haproxy

HOSTILE = ["none", "77", "-1", "999999999999999999999", 'a"b', "{x=", "é", "../1", "a" * 300]
# Set once there is a challenger, feedback, drift, or a gate; or only by what this server does not see.
LATER = {
    "flywheel_canary_accuracy", "flywheel_canary_error_ratio", "flywheel_canary_latency_seconds",
    "flywheel_canary_requests", "flywheel_corrected_ratio", "flywheel_drift_bound", "flywheel_drift_statistic",
    "flywheel_gate_checks_total", "flywheel_judged_predictions", "flywheel_last_retraining_timestamp_seconds",
    "flywheel_online_accuracy", "flywheel_shadow_texts_total", "flywheel_feedback_total", "flywheel_handoffs_total",
    "flywheel_opinion_observed_negative", "flywheel_opinion_expected_negative",
}  # fmt: skip


def metrics(server: Server) -> dict[str, float]:
    """By line without its value; each line is one series."""
    text = server.get("/metrics").text
    pairs = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
    return {series: float(value) for series, _, value in pairs}


def total(found: dict[str, float], name: str, **labels: str) -> float:
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(v for series, v in found.items() if re.match(rf"{name}\b", series) and all(w in series for w in wanted))


def named(found: dict[str, float]) -> set[tuple[str, str]]:
    """The values of labels that a client might choose."""
    return {
        pair for series in found for pair in re.findall(r'(task|version|endpoint|topic)="((?:[^"\\]|\\.)*)"', series)
    }


def ask(server: Server, task: str, version: str | None = None) -> int:
    text = f"where is my order {uuid4().hex}?"
    body: dict[str, object] = {"text": text}
    if task == "recommendation":
        body = {"candidates": [{"id": "1", "text": text}]}
    path = f"/v2/models/{task}" + (f"/versions/{quote(version, safe='')}" if version is not None else "")
    return server.post(f"{path}/predict", json=body).status_code


def test_all_metrics_are_there_and_promtool_has_nothing_to_say(server: Server) -> None:
    for task in TASKS:
        assert ask(server, task) == 200
    time.sleep(3)  # the controller's next step
    text = server.get("/metrics").text
    names = set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    assert {metric.name for metric in BY_FAMILY.values()} - names == set()
    with_series = {re.split(r"[{ ]", line, maxsplit=1)[0] for line in text.splitlines() if not line.startswith("#")}
    with_series = {re.sub(r"_(bucket|sum|count)$", "", name) for name in with_series}
    assert {metric.name for metric in BY_FAMILY.values()} - with_series <= LATER
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_an_answer_is_counted_with_its_label_score_and_confidence(server: Server) -> None:
    before = metrics(server)
    for _ in range(3):
        assert ask(server, "intent") == 200
    after = metrics(server)
    for name in (
        "flywheel_predictions_total", "flywheel_prediction_score_count", "flywheel_prediction_confidence_total",
    ):  # fmt: skip
        assert total(after, name, task="intent") - total(before, name, task="intent") == 3, name
    decoded = {"task": "intent", "stage": "decode"}
    assert total(after, "flywheel_stage_seconds_count", **decoded) > total(
        before, "flywheel_stage_seconds_count", **decoded
    )


def test_clients_make_no_series(server: Server) -> None:
    for task in TASKS:
        ask(server, task, HOSTILE[0])
        ask(server, task)
    before = metrics(server)
    for name in HOSTILE:
        for task in TASKS:
            assert ask(server, task, name) in (400, 404, 414)
        server.post(f"/v2/models/{quote(name, safe='')}/predict", json={"text": "a"})
        server.post("/v2/models/intent/predict", json={"text": "a"}, headers={"x-user-id": quote(name)})
        server.post("/v2/models/sentiment/predict", json={"text": "a", "topic": name})
    after = metrics(server)
    assert named(after) == named(before)
    assert len(after) - len(before) < len(HOSTILE), "codes and results, which are few"
    assert total(metrics(server), "flywheel_requests_total", version="none", code="404") >= len(HOSTILE)


@pytest.mark.needs_tweak("haproxy")
def test_a_request_that_no_replica_answers_is_counted(server: Server) -> None:
    listed = ask_haproxy(server, "show servers state http-intent").splitlines()[2:]
    servers = [row.split()[3] for row in listed if row.strip()]
    before = metrics(server)
    for one in servers:
        ask_haproxy(server, f"set server http-intent/{one} state maint")
    try:
        answer = server.post("/v2/models/intent/predict", json={"text": "where is my order?"})
    finally:
        for one in servers:
            ask_haproxy(server, f"set server http-intent/{one} state ready")
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    name, after = "flywheel_unanswered_requests_total", metrics(server)
    for task, reason, expected in (
        ("intent", "no_replica", 1),
        ("intent", "no_answer", 0),
        ("sentiment", "no_replica", 0),
    ):
        labels = {"task": task, "reason": reason}
        assert total(after, name, **labels) - total(before, name, **labels) == expected, labels
    assert ask(server, "intent") == 200


def test_processes_and_builds(server: Server) -> None:
    found = metrics(server)
    for process in ("control", *TASKS):
        assert total(found, "flywheel_process_resident_memory_bytes", process=process) > 1e7
        assert (
            0
            < total(found, "flywheel_process_open_fds", process=process)
            < total(found, "flywheel_process_max_fds", process=process)
        )
    assert sum(series.startswith("flywheel_build_info") for series in found) == 1
    for task in TASKS:
        assert total(found, "flywheel_model_info", task=task) == 1
        assert total(found, "flywheel_release_fraction", task=task) == 1
