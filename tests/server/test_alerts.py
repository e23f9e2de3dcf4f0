"""A real server under a real Prometheus: what is done to it fires the alerts that it should, and no others.

Time passes 60 times faster in the rules (tests/helpers/prometheus.py). The tests run in the order of the file: the last
one ends the server.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from models.feedback.store import Store
from tests.helpers.bases import FAMILIES, make_base
from tests.helpers.command import ROOT, flywheel
from tests.helpers.monitoring import DASHBOARDS, RULE_FILES, Panel, panels, rules_of, selectors_of
from tests.helpers.own_corpus import OWN, own_data
from tests.helpers.prometheus import Prometheus, start_prometheus
from tests.helpers.server import Server, children, start_server, stop_server
from tests.helpers.waiting import eventually

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed (Debian's package)"),
]
INTENT, SENTIMENT = "/v2/models/intent", "/v2/models/sentiment"
OPERATIONS = "/v2/repository/models/intent"
USUAL_S = 130.0
"""of usual load before anything is done: what is usual is the minute that ended a minute ago"""
NO_DATA = {
    'probe_ssl_earliest_cert_expiry{job="flywheel-certificate"}',  # there is no blackbox exporter
    'probe_success{job="flywheel-certificate"}',
    'flywheel_last_retraining_timestamp_seconds{outcome="failed"}',  # none failed
}
"""selectors of rules that have no data here"""


@dataclass
class Watched:
    """A server with its Prometheus, and what asks it all the time."""

    server: Server
    prometheus: Prometheus
    began: float = field(default_factory=time.time)

    @contextmanager
    def only(self, *must: tuple[str, str], may: Collection[tuple[str, str]] = (), seconds: float) -> Iterator[None]:
        """What is done within fires all of `must` within so many seconds after it, and nothing else but `may`."""
        began = time.time()
        yield
        eventually(lambda: set(must) <= self.prometheus.began_to_fire(began, time.time()), seconds)
        for text in self.prometheus.annotations():
            assert "<error" not in str(text), text  # as Prometheus writes it into one that it cannot fill
            assert "<no value>" not in str(text), text
        assert self.prometheus.began_to_fire(began, time.time()) <= {*must, *may}


def usual_load(server: Server, stop: threading.Event) -> None:
    """Five predicts a second of each task, and a document about a topic each five seconds."""
    draw = random.Random(0)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(10**9):
            if stop.wait(0.2):
                return
            try:
                client.post(f"{INTENT}/predict", json={"text": draw.choice(OWN)[0]})
                about = {"topic": "airlines"} if number % 25 == 0 else {}
                text = f"Velmora to publish its calendar on gate {draw.randrange(1000)}"
                client.post(f"{SENTIMENT}/predict", json={"text": text, **about})
            except httpx.TransportError:  # replicas, or the server, are being killed
                stop.wait(0.5)


def tell(server: Server, count: int, *, right: bool) -> None:
    """Predict so many texts of intent, and send what is right or wrong as feedback on each."""
    other = {"astronomy": "gardening", "gardening": "astronomy"}
    draw = random.Random(time.time())
    texts = [f"{draw.choice(OWN)[0]} {draw.randrange(10**9)}" for _ in range(count)]
    for start in range(0, count, 50):
        answer = server.post(f"{INTENT}/predict", json={"texts": texts[start : start + 50]}).json()
        items = [
            {
                "id": answer["id"], "index": index, "source": f"desk {index % 5}", "consent": True,
                "label": found["label"] if right else other[found["label"]],
            }
            for index, found in enumerate(answer["predictions"])
        ]  # fmt: skip
        eventually(lambda items=items: server.post(f"{INTENT}/feedback", json={"feedback": items}).is_success, 10)  # type: ignore[misc]


def long_texts(count: int, *, sentences: int) -> list[str]:
    """Texts that are neutral, as the usual ones are, and longer; each is another."""
    draw = random.Random(time.time())
    sentence = "Velmora to publish its calendar on gate {}"
    return ["; ".join(sentence.format(draw.randrange(10**6)) for _ in range(sentences)) for _ in range(count)]


@pytest.fixture(scope="module")
def watched(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Sentiment as it is, an intent of two labels whose last two candidates were refused, and what asks them."""
    folder = tmp_path_factory.mktemp("watched")
    home = folder / "home"
    for part in ("releases", "bundles"):
        (home / part).mkdir(parents=True)
    shutil.copy(trained_home / "releases" / "sentiment.json", home / "releases")
    shutil.copytree(trained_home / "bundles" / "sentiment", home / "bundles" / "sentiment")
    base = make_base(FAMILIES["bert"], folder / "base")
    done = flywheel("train", "intent", "--data", str(own_data(folder)), "--base", str(base), home=home, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.copytree(home / "bundles" / "intent" / "1", home / "bundles" / "intent" / "2")
    with closing(Store(f"sqlite:///{home / 'feedback.db'}")) as store:
        for _ in range(2):  # of the nights before: a retraining takes most of a minute
            store.audit.append("intent", "retrain refused", None, "test", "it was no better")
    server = start_server(
        home,
        folder / "server.log",
        tasks=["intent", "sentiment"],
        FLYWHEEL_TASKS__INTENT__REPLICAS="2",
        FLYWHEEL_TASKS__INTENT__OPTIONS__HANDOFF_BELOW="0.99",
        FLYWHEEL_TASKS__SENTIMENT__OPTIONS__TOPICS=str(ROOT / "deploy" / "topics.example.yaml"),
        FLYWHEEL_LEARNING__AUTOMATIC="false",
        FLYWHEEL_LEARNING__DRIFT_EVERY_S="5",
        FLYWHEEL_ROLLOUT__AUTOMATIC="false",
    )
    stop = threading.Event()
    load = threading.Thread(target=usual_load, args=(server, stop))
    with ExitStack() as stack:
        stack.callback(stop_server, server)
        prometheus = start_prometheus(server.url.removeprefix("http://"), folder / "prometheus")
        stack.callback(prometheus.process.wait)
        stack.callback(prometheus.process.terminate)
        # Its first scrape comes seconds after its start, and a server that is not known is one that is down.
        eventually(lambda: bool(prometheus.query('up{job="flywheel"} == 1')) and not prometheus.firing(), 60)
        load.start()
        stack.callback(load.join)
        stack.callback(stop.set)
        yield Watched(server, prometheus)


def test_usual_load_fires_nothing(watched: Watched) -> None:
    """A canary, then a shadow, among it."""
    server = watched.server
    with watched.only(seconds=1):
        for number in range(int(USUAL_S / 10)):
            if (mode := {1: "canary", 9: "shadow"}.get(number)) is not None:
                share = {"share": 0.5} if mode == "canary" else {}
                moved = server.post(f"{OPERATIONS}/challenge", json={"version": "2", "mode": mode, **share})
                assert moved.is_success, moved.text
            tell(server, 10, right=True)
            time.sleep(10)
        assert server.post(f"{OPERATIONS}/rollback", json={"reason": "the test"}).is_success


def test_bad_corrections_are_seen_and_the_gate_refuses_what_was_learned_from_them(watched: Watched) -> None:
    server = watched.server
    with watched.only(("FlywheelAccuracyFalling", "intent"), seconds=60):
        tell(server, 400, right=False)
    with watched.only(("FlywheelGateRefusing", "intent"), seconds=60):
        request = server.post(f"{OPERATIONS}/retrain", json={"reason": "to see it refused"}).json()["request"]
        eventually(lambda: ended(server, request) is not None, 180)
        assert ended(server, request) == "refused"


def ended(server: Server, request: int) -> str | None:
    """The outcome of a requested retraining; None while it waits or runs."""
    requests = server.get(f"{OPERATIONS}/retrain").json()["requests"]
    outcome: str | None = next(one for one in requests if one["id"] == request).get("outcome")
    return outcome


def test_texts_that_are_longer_than_before_are_drift(watched: Watched) -> None:
    with watched.only(("FlywheelDrift", "sentiment"), may=burns("Latency", "sentiment"), seconds=60):
        for texts in (["Velmora to publish its calendar"] * 1000, long_texts(1000, sentences=4)):
            for start in range(0, len(texts), 8):
                answer = watched.server.post(f"{SENTIMENT}/predict", json={"texts": texts[start : start + 8]})
                assert answer.is_success, answer.text


def test_replicas_that_are_killed_again_and_again(watched: Watched) -> None:
    flapping = ("FlywheelReplicaFlapping", "intent")
    effects = {("FlywheelReplicaMissing", "intent"), ("FlywheelShedding", "intent")}
    with watched.only(flapping, may=effects | burns("Availability", "intent"), seconds=1):
        deadline, killed_at = time.monotonic() + 150, 0.0
        while flapping not in watched.prometheus.firing():
            assert time.monotonic() < deadline, "not within 150 s"
            if (started := starts(watched)) >= killed_at + 2:  # one that is killed before it counts has not started
                killed_at = started
                for replica in children(watched.server.process.pid, "ServeReplica:intent"):
                    os.kill(replica, signal.SIGKILL)
            time.sleep(1)
    eventually(lambda: watched.server.post(f"{INTENT}/predict", json={"text": "a comet"}).is_success, 60)


def starts(watched: Watched) -> float:
    """How many replicas of intent have started."""
    [found] = watched.prometheus.query('sum(flywheel_replica_starts_total{task="intent"})')
    return float(found["value"][1])


def test_more_requests_than_can_be_answered(watched: Watched) -> None:
    must = [(name, "sentiment") for name in ("FlywheelShedding", "FlywheelSaturated", "FlywheelAvailabilityBurnFast")]
    may = burns("Availability", "sentiment") | burns("Latency", "sentiment") | burns("Latency", "intent")
    deadline = time.monotonic() + 60

    def ask() -> None:
        with httpx.Client(base_url=watched.server.url, timeout=30) as client:
            while time.monotonic() < deadline and not set(must) <= watched.prometheus.firing():
                for _ in range(10):
                    client.post(f"{SENTIMENT}/predict", json={"texts": long_texts(16, sentences=12)})

    with watched.only(*must, may=may, seconds=1), ThreadPoolExecutor(16) as pool:
        for asked in [pool.submit(ask) for _ in range(16)]:
            asked.result()
    eventually(lambda: not set(must) & watched.prometheus.firing(), 150)


def burns(of: str, task: str) -> set[tuple[str, str]]:
    return {(f"Flywheel{of}Burn{speed}", task) for speed in ("Fast", "Slow")}


def test_every_rule_is_evaluated_and_its_series_have_data(watched: Watched) -> None:
    for rule in watched.prometheus.rules():
        assert rule["health"] == "ok", rule
    for rule in (rule for file in RULE_FILES for rule in rules_of(file)):
        expected = {rule["record"]} if "record" in rule else selectors_of(rule["expr"])
        missing = {selector for selector in expected - NO_DATA if not has_data(watched, selector)}
        assert not missing, rule


@pytest.mark.parametrize("panel", [panel for file in DASHBOARDS for panel in panels(file)], ids=str)
def test_every_panel_has_data(watched: Watched, panel: Panel) -> None:
    for query in panel.queries:
        asked = query.replace('task="$task"', 'task=~".*"')
        for variable, value in (("$task", ".*"), ("$topic", ".*"), ("$__rate_interval", "10s")):
            asked = asked.replace(variable, value)
        series = watched.prometheus.query_range(asked, watched.began, time.time(), step_s=5)
        assert any(value != "NaN" for one in series for _, value in one["values"]), asked


def has_data(watched: Watched, selector: str) -> bool:
    return bool(watched.prometheus.query(f"last_over_time({selector}[1h])"))


def test_a_server_that_is_gone(watched: Watched) -> None:
    with watched.only(("FlywheelDown", ""), may=burns("Availability", "sentiment"), seconds=30):
        os.killpg(watched.server.process.pid, signal.SIGKILL)
