"""Opinion monitoring over a month of made headlines: it ends in exactly the alerts that were planted.

14,600 headlines on the 30 topics of deploy/topics.example.yaml are sent to a server of its own as fast as it takes
them, with the times at which they were published; the model of the home gives them their labels. Planted are six surges
of negative headlines, one of them still going on and one that ended in the last day; and what must make no alert: a
volume and a mood that drift, a rise that keeps its mood, and a headline that is printed sixty times. Asked are alerts
and trends, what a webhook's receiver got, and a Prometheus that scrapes the server, if there is one. The headlines are
the holdout of the seed corpus, each with a made name and number. Prints each figure beside its bound and exits 1 when
one is missed.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

import yaml
from rich.console import Console
from rich.progress import track

from loadtests.scenarios.market_month import COPIES, HOURS, Headline, Plan, Planted, month, plan
from loadtests.scenarios.world import Body, Client, Row, copy_of_models, eventually, serving, show
from loadtests.servers import free_port
from loadtests.texts import ROOT, SEED

EXAMPLES = """examples:
  python loadtests/scenarios/market_day.py                          some minutes; needs a trained sentiment model
  python loadtests/scenarios/market_day.py --prometheus ~/prometheus-2.53/prometheus
  FLYWHEEL_FEEDBACK__STORE=postgresql://... python loadtests/scenarios/market_day.py    on an empty database

Prometheus: apt install prometheus, or any from 2.42 on. Without one its part is left out, with a sentence.
"""
TOPICS, RULES = ROOT / "deploy" / "topics.example.yaml", ROOT / "deploy" / "prometheus" / "opinion.rules.yml"
_AT_ONCE = 64
_COUNTED_WITHIN_S = 240.0
_HOUR = timedelta(hours=1)
_WINDOW = 6  # hours
_OWN_RULE = """
groups:
  - name: market-day
    interval: 1s
    rules:
      - alert: NegativeNews
        expr: flywheel_opinion_alert_active == 1
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prometheus", help="the program; the default is the one in $PATH")
    options = parser.parse_args()
    program = shutil.which(options.prometheus or "prometheus")
    if options.prometheus and program is None:
        sys.exit(f"there is no program {options.prometheus}")
    topics = [topic["name"] for topic in yaml.safe_load(TOPICS.read_text(encoding="utf-8"))]
    planned = plan(topics)
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    headlines = month(end, topics, _pool(), planned)
    with tempfile.TemporaryDirectory() as folder, _receiving() as got:
        home = copy_of_models(Path(folder) / "home")
        settings = {
            "tasks": {"sentiment": {"replicas": 1, "options": {"topics": str(TOPICS)}}},
            "learning": {"automatic": False},
            "opinion": {"webhook": {"url": got.url}},
        }
        with serving(home, settings) as server, _prometheus(program, server.port, Path(folder)) as prometheus:
            client = server.client()
            labels = _send(client, headlines)
            rows = [_counted(client, headlines, end)]
            rows += _alerts(client, planned, end)
            rows += _stories(client, planned, end)
            rows += _messages(got, planned)
            if prometheus is not None:
                rows += _scraped(prometheus, headlines, planned)
    print(f"labels of the model: {dict(labels)}")
    if program is None:
        print("Prometheus was not found, so that it was not asked (apt install prometheus, or --prometheus PROGRAM).")
    return show(rows)


def _pool() -> dict[str, list[str]]:
    """The holdout of the seed corpus by label."""
    found: dict[str, list[str]] = {}
    with (SEED / "sentiment.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "holdout":
                found.setdefault(row["label"], []).append(row["text"])
    return found


def _send(client: Client, headlines: Sequence[Headline]) -> Counter[str]:
    """Send all in the order of time, some in a request. How often the model gave each label."""
    labels: Counter[str] = Counter()
    parts = [headlines[first : first + _AT_ONCE] for first in range(0, len(headlines), _AT_ONCE)]
    for part in track(parts, "sending", console=Console(stderr=True)):
        documents = [
            {"text": one.text, "topic": one.topic, "published": one.published.isoformat(), "document_id": one.id}
            for one in part
        ]
        answer = _patiently(client, {"documents": documents})
        labels.update(prediction["label"] for prediction in answer["predictions"])
    return labels


def _patiently(client: Client, body: Body) -> Any:
    for _ in range(10):
        status, answer = client.ask("/v2/models/sentiment/predict", body)
        if status == 200:
            return answer
        if status not in (0, 503, 504):  # busy: the machine is shared with the model
            break
        time.sleep(1)
    sys.exit(f"predict: {status}: {answer}")


def _trend(client: Client, end: datetime, topic: str | None = None) -> list[Any]:
    """The trend of the whole month by the hour."""
    given = {"start": (end - HOURS * _HOUR).isoformat(), "end": end.isoformat(), "step": "1h"}
    query = urllib.parse.urlencode(given | ({"topic": topic} if topic else {}))
    points: list[Any] = client.must(f"/v2/opinion/trends?{query}")["points"]
    return points


def _counted(client: Client, headlines: Sequence[Headline], end: datetime) -> Row:
    def texts() -> int:
        return sum(point["texts"] for point in _trend(client, end))

    seconds = eventually(lambda: texts() >= len(headlines), _COUNTED_WITHIN_S, every=1.0)
    print(f"counted {texts():,} of {len(headlines):,} texts {seconds:.0f} s after the last one was answered")
    time.sleep(5)  # two steps of the controller: the last batch is evaluated, and nothing is counted twice
    return Row("texts that the trend of the month lacks, or has too many of", abs(texts() - len(headlines)), "<=", 0)


def _alerts(client: Client, planned: Plan, end: datetime) -> list[Row]:
    """The alerts beside the surges that were planted: each of these once, at its time, and no other."""
    alerts = client.must("/v2/opinion/alerts")["alerts"]
    left = list(alerts)
    found, in_time = 0, 0
    for surge in planned.surges:
        same = [alert for alert in left if alert["topic"] == surge.topic and _touches(alert, surge, end)]
        if same:
            found += 1
            left.remove(same[0])
            in_time += _is_in_time(same[0], surge, end)
    for alert in sorted(alerts, key=lambda alert: str(alert["started"])):
        was = "not planted" if alert in left else "planted"
        first, after = _hours(alert, end)
        print(
            f"  {alert['topic']:18} hours {first} to {after or 'now'}: {alert['observed']:.0f} negative stories, "
            f"{alert['expected']:.1f} expected; {was}; {len(alert['examples'])} examples"
        )
    bare = sum(not alert["examples"] for alert in alerts)
    return [
        Row("planted surges without an alert", len(planned.surges) - found, "<=", 0),
        Row("alerts that were not planted", len(left), "<=", 0),
        Row("alerts that do not begin and end with their surge", found - in_time, "<=", 0),
        Row("alerts without examples", bare, "<=", 0),
    ]


def _hours(alert: Mapping[str, Any], end: datetime) -> tuple[int, int | None]:
    """The hours of the month in which an alert began, and after which it ended."""

    def hour(moment: str) -> int:
        return HOURS + round((datetime.fromisoformat(moment) - end) / _HOUR)

    return hour(alert["started"]), None if alert["ended"] is None else hour(alert["ended"])


def _touches(alert: Mapping[str, Any], surge: Planted, end: datetime) -> bool:
    first, after = _hours(alert, end)
    return first < surge.after and (after is None or after > surge.first)


def _is_in_time(alert: Mapping[str, Any], surge: Planted, end: datetime) -> bool:
    """Whether it begins within two hours, and has at most _WINDOW more at each side: so many are tested together."""
    first, after = _hours(alert, end)
    goes_on = surge.after == HOURS
    ends = after is None if goes_on else after is not None and 0 <= after - surge.after <= _WINDOW
    return -_WINDOW <= first - surge.first <= 1 and ends


def _stories(client: Client, planned: Plan, end: datetime) -> list[Row]:
    points = _trend(client, end, planned.copied)[planned.copied_first : planned.copied_first + 3]
    texts, stories = sum(point["texts"] for point in points), sum(point["stories"] for point in points)
    return [Row(f"stories of the headline that was printed {COPIES} times", COPIES - (texts - stories), "<=", 1)]


@dataclass
class _Got:
    """What the webhook's receiver got."""

    url: str
    messages: list[Any] = field(default_factory=list)

    def states(self) -> Counter[tuple[str, str]]:
        return Counter((message["commonLabels"]["topic"], message["status"]) for message in self.messages)


@contextmanager
def _receiving() -> Iterator[_Got]:
    """A webhook's receiver on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.messages.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        got = _Got(f"http://127.0.0.1:{server.server_port}/alerts")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield got
        finally:
            server.shutdown()


def _messages(got: _Got, planned: Plan) -> list[Row]:
    """Of the surges of the last day the beginning and, if it has ended, the end; of older ones nothing."""
    wanted: Counter[tuple[str, str]] = Counter()
    for surge in planned.surges:
        if surge.after > HOURS - 24:
            wanted[surge.topic, "firing"] += 1
            if surge.after < HOURS:
                wanted[surge.topic, "resolved"] += 1
    eventually(lambda: got.states() >= wanted, 15)
    print(f"  the webhook's receiver got: {dict(got.states())}")
    return [
        Row("messages that the webhook's receiver lacks", (wanted - got.states()).total(), "<=", 0),
        Row("messages that it should not have got", (got.states() - wanted).total(), "<=", 0),
    ]


@contextmanager
def _prometheus(program: str | None, port: int, folder: Path) -> Iterator[str | None]:
    """Run a Prometheus that scrapes the server every two seconds; its URL."""
    if program is None:
        yield None
        return
    own = folder / "market-day.rules.yml"
    own.write_text(_OWN_RULE, encoding="utf-8")
    configuration = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES), str(own)],
        "scrape_configs": [{"job_name": "flywheel", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    command = [
        program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        if eventually(lambda: _is_ready(f"http://{address}"), 30) == float("inf"):
            sys.exit(f"Prometheus did not start:\n{(folder / 'prometheus.log').read_text(errors='replace')[-2000:]}")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _query(url: str, expression: str) -> dict[str, float]:
    """The value of each topic."""
    with urllib.request.urlopen(f"{url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}") as response:
        found = json.load(response)["data"]["result"]
    return {one["metric"]["topic"]: float(one["value"][1]) for one in found}


def _scraped(url: str, headlines: Sequence[Headline], planned: Plan) -> list[Row]:
    sent = Counter(headline.topic for headline in headlines)
    goes_on = {surge.topic for surge in planned.surges if surge.after == HOURS}
    surged = {surge.topic for surge in planned.surges}

    def texts() -> dict[str, float]:
        return _query(url, "sum by (topic) (flywheel_opinion_texts_total) > 0")

    def firing() -> set[str]:
        return set(_query(url, 'ALERTS{alertname="NegativeNews", alertstate="firing"}'))

    eventually(lambda: texts() == sent and firing() == goes_on, 20)
    seen = set(_query(url, "max_over_time(flywheel_opinion_alert_active[1h]) == 1"))
    with urllib.request.urlopen(f"{url}/api/v1/rules") as response:
        rules = [rule for group in json.load(response)["data"]["groups"] for rule in group["rules"]]
    broken = [rule["name"] for rule in rules if rule["health"] == "err"]
    print(f"  Prometheus: {firing()} firing at the end, {seen} were active; {len(rules)} rules")
    return [
        Row("Prometheus: topics with other texts than were sent", len(sent.items() ^ texts().items()), "<=", 0),
        Row("Prometheus: topics that fire and should not, or the reverse", len(firing() ^ goes_on), "<=", 0),
        Row("Prometheus: topics that were ever active without a planted surge", len(seen - surged), "<=", 0),
        Row("Prometheus: rules that cannot be evaluated", len(broken), "<=", 0),
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit(main())
