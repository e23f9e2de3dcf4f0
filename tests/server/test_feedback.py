"""Corrections over HTTP: taken once, confirmed when durable, refused with a reason; and the log behind them."""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from loadtests.faults.server import replicas
from models.feedback.store import Store
from serve.config import Config
from serve.controller.opinion_monitor import OpinionMonitor
from tests.helpers.command import flywheel
from tests.helpers.contract import assert_error
from tests.helpers.postgres import PostgresMissing, postgres_server
from tests.helpers.server import Server, children, start_server, stop_server
from tests.helpers.store import bytes_of_store
from tests.helpers.waiting import eventually

MODEL = "/v2/models/intent"
FEEDBACK = f"{MODEL}/feedback"
OPERATIONS = "/v2/repository/models/intent"
GOOD = {"text": "the parcel never came", "label": "track_order", "source": "desk", "consent": True}


@pytest.fixture(scope="module")
def desk(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this file's own: the counts in its store are only ours."""
    folder = tmp_path_factory.mktemp("feedback")
    for part in ("releases", "bundles"):
        shutil.copytree(trained_home / part, folder / "home" / part)
    running = start_server(folder / "home", folder / "server.log", FLYWHEEL_LEARNING__AUTOMATIC="false")
    yield running
    assert stop_server(running) == 0


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    body = assert_error(response, status)
    assert body["code"] == code
    return body


def predict(server: Server, user: str | None = None, **body: Any) -> dict[str, Any]:
    headers = {"x-user-id": user} if user else {}
    answer: dict[str, Any] = server.post(f"{MODEL}/predict", json=body, headers=headers).json()
    return answer


def states(server: Server) -> dict[str, int]:
    found: dict[str, int] = server.get(FEEDBACK).json()["states"]
    return found


def rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(server.home / "feedback.db") as database:
        return database.execute(query).fetchall()


def test_a_correction_of_an_answer_is_taken_once_and_joined_with_its_text(desk: Server) -> None:
    id_ = predict(desk, text="my parcel number one is late")["id"]
    body = {"id": id_, "label": "track_order", "source": "desk", "consent": True}
    first, again = desk.post(FEEDBACK, json=body), desk.post(FEEDBACK, json=body)
    assert (first.status_code, first.json()) == (202, {"status": "accepted"})
    assert (again.status_code, again.json()) == (202, {"status": "duplicate"})
    found = rows(desk, f"SELECT text, label, version FROM feedback WHERE prediction_id = '{id_}'")
    assert found == [("my parcel number one is late", "track_order", "1")]


def test_each_text_of_a_prediction_is_corrected_by_its_index(desk: Server) -> None:
    id_ = predict(desk, texts=["first of two", "second of two"])["id"]
    body = {"id": id_, "label": "track_order", "source": "desk", "consent": True}
    refused(desk.post(FEEDBACK, json=body), 422, "invalid_request")
    refused(desk.post(FEEDBACK, json={**body, "index": 2}), 422, "invalid_request")
    assert desk.post(FEEDBACK, json={**body, "index": 1}).status_code == 202
    assert rows(desk, f"SELECT text FROM feedback WHERE prediction_id = '{id_}'") == [("second of two",)]


def test_a_batch_takes_what_is_good_and_says_what_is_not(desk: Server) -> None:
    items = [{**GOOD, "text": "of a batch"}, {**GOOD, "label": "no_such_label"}, {**GOOD, "text": "of a batch"}]
    response = desk.post(FEEDBACK, json={"feedback": items})
    assert response.status_code == 202
    assert response.json()["taken"] == 2
    one, two, three = response.json()["results"]
    assert one == {"status": "accepted"}
    assert two["code"] == "invalid_request"
    assert "no_such_label" in two["error"]
    assert three == {"status": "duplicate"}
    nothing = desk.post(FEEDBACK, json={"feedback": [{**GOOD, "label": "no_such_label"}]})
    error = refused(nothing, 422, "invalid_request")
    assert "no_such_label" in error["error"]
    assert [result["code"] for result in error["results"]] == ["invalid_request"]


def test_an_item_that_is_no_correction_leaves_the_others_of_its_batch(desk: Server) -> None:
    wrong: list[Any] = [
        {**GOOD, "label": 7},
        {**GOOD, "surprise": 1},
        {**GOOD, "text": None},
        {**GOOD, "text": "x" * 5000},
        {**GOOD, "label": "a\nb"},
        "a text",
        None,
        {},
    ]
    wheres = ["label", "surprise", "body", "text", "label", "body", "body", "body"]
    items = [{**GOOD, "text": "before them"}, *wrong, {**GOOD, "text": "after them"}]
    response = desk.post(FEEDBACK, json={"feedback": items})
    assert response.status_code == 202
    body = response.json()
    assert (body["taken"], body["refused"]) == (2, len(wrong))
    assert body["results"][0] == body["results"][-1] == {"status": "accepted"}
    assert [result["fields"][0]["field"] for result in body["results"][1:-1]] == wheres
    assert rows(desk, "SELECT count(*) FROM feedback WHERE text IN ('before them', 'after them')") == [(2,)]
    error = refused(desk.post(FEEDBACK, json={"feedback": wrong}), 422, "invalid_request")
    assert error["results"] == body["results"][1:-1]


def send_file(server: Server, file: Path) -> subprocess.CompletedProcess[str]:
    return flywheel("feedback", "intent", str(file), "--url", server.url, home=server.home)


def test_a_file_of_long_texts_is_sent_in_requests_that_the_server_takes(desk: Server, tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    lines = [{**GOOD, "text": f"long {number} " + "word " * 270} for number in range(1000)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = send_file(desk, file)
    assert (done.returncode, done.stdout) == (0, "1,000 sent: 1,000 accepted\n"), done.stderr
    assert rows(desk, "SELECT count(*) FROM feedback WHERE text LIKE 'long %'") == [(1000,)]


def test_a_file_with_wrong_lines_is_sent_to_its_end_and_they_are_named(desk: Server, tmp_path: Path) -> None:
    file = tmp_path / "mixed.jsonl"
    unknown = [json.dumps({**GOOD, "text": f"mixed {number}", "label": "no_such_label"}) for number in range(1000)]
    good = [json.dumps({**GOOD, "text": "mixed and right"}), json.dumps({**GOOD, "text": "mixed", "label": 7})]
    file.write_bytes(b"\xef\xbb\xbf" + "\n".join([*unknown, "", *good]).encode())  # with a BOM
    done = send_file(desk, file)
    assert (done.returncode, done.stdout) == (1, "1,002 sent: 1,001 refused, 1 accepted\n")
    said = done.stderr.splitlines()
    assert said[0].startswith(f"{file}, line 1: label: intent has no label 'no_such_label'")
    assert said[-1].startswith(f"{file}, line 1003: label: ")
    assert len(said) == 1001


def test_a_table_is_sent_like_lines_of_json(desk: Server, tmp_path: Path) -> None:
    id_ = predict(desk, texts=["a table's first", "a table's second"])["id"]
    file = tmp_path / "table.csv"
    file.write_text(f"id,index,text,label,consent\n{id_},1,,track_order,True\n,,a table's own,track_order,no\n")
    done = send_file(desk, file)
    assert (done.returncode, done.stdout) == (0, "2 sent: 2 accepted\n"), done.stderr
    assert rows(desk, f"SELECT text FROM feedback WHERE prediction_id = '{id_}'") == [("a table's second",)]


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({}, "body"),
        ({"label": "track_order"}, "body"),
        ({**GOOD, "id": "x"}, "body"),
        ({"text": "no label"}, "label"),
        ({**GOOD, "label": ""}, "label"),
        ({**GOOD, "label": "a\nb"}, "label"),
        ({**GOOD, "label": 7}, "label"),
        ({**GOOD, "consent": "yes"}, "consent"),
        ({**GOOD, "text": "   "}, "text"),
        ({**GOOD, "text": "x" * 5000}, "text"),
        ({**GOOD, "index": 0}, "body"),
        ({**GOOD, "item_id": "a", "event": "click"}, "item_id"),
        ({**GOOD, "surprise": 1}, "surprise"),
        ({**GOOD, "label": "no_such_label"}, "label"),
        ({"feedback": []}, "feedback"),
        ({"feedback": [{**GOOD}] * 1001}, "feedback"),
        ({"feedback": "all"}, "feedback"),
        ([GOOD], "body"),
    ],
)
def test_what_is_wrong_is_named(desk: Server, body: Any, where: str) -> None:
    before = states(desk)
    error = refused(desk.post(FEEDBACK, json=body), 422, "invalid_request")
    assert error["fields"][0]["field"] == where
    assert states(desk) == before


def test_unknown_and_stale_ids_are_told_apart(desk: Server) -> None:
    body = {"label": "track_order", "source": "desk", "consent": True}
    now = int(time.time() * 1000)
    refused(desk.post(FEEDBACK, json={**body, "id": "nobody's"}), 404, "not_found")
    refused(desk.post(FEEDBACK, json={**body, "id": f"{now:012x}{'0' * 20}"}), 404, "not_found")
    refused(desk.post(FEEDBACK, json={**body, "id": f"{now - 40 * 86_400_000:012x}{'0' * 20}"}), 410, "gone")


def test_a_ranking_is_corrected_by_item_and_event(desk: Server) -> None:
    body = {"user": {"id": "u7"}, "candidates": [{"id": "a", "text": "a tent"}, {"id": "b", "text": "a mug"}]}
    id_ = desk.post("/v2/models/recommendation/predict", json=body).json()["id"]
    path = "/v2/models/recommendation/feedback"
    good = {"id": id_, "item_id": "b", "event": "click", "source": "shop", "consent": True}
    assert desk.post(path, json=good).json() == {"status": "accepted"}
    assert desk.post(path, json=good).json() == {"status": "duplicate"}
    events = [("dislike", None), ("dwell", 12.5), ("rating", 4), ("rating", 2)]
    batch = [{**good, "item_id": "a", "event": event, "value": value} for event, value in events]
    results = desk.post(path, json={"feedback": batch}).json()["results"]
    assert [result["status"] for result in results] == ["accepted", "accepted", "accepted", "replaced"]
    kept = "SELECT event, value FROM feedback WHERE item_id = 'a' ORDER BY event"
    assert rows(desk, kept) == [("dislike", None), ("dwell", 12.5), ("rating", 2.0)]
    refused(desk.post(path, json={**good, "item_id": "c"}), 422, "invalid_request")
    refused(desk.post(path, json={"id": id_, "label": "b"}), 422, "invalid_request")


def test_without_consent_no_text_is_kept(desk: Server) -> None:
    text = "a text that was not given away"
    assert desk.post(FEEDBACK, json={**GOOD, "text": text, "consent": False}).status_code == 202
    assert rows(desk, f"SELECT count(*) FROM feedback WHERE text = '{text}'") == [(0,)]
    assert states(desk)["no_consent"] >= 1


def test_personal_data_and_user_names_never_reach_the_store(desk: Server) -> None:
    secrets = ["zoe.quimby@example.net", "4111 1111 1111 1111", "customer-zoe-77"]
    answer = predict(desk, user=secrets[2], text=f"write to {secrets[0]} and charge {secrets[1]}")
    body = {**GOOD, "text": f"mail me at {secrets[0]}, card {secrets[1]}", "user": secrets[2]}
    assert desk.post(FEEDBACK, json=body).status_code == 202
    eventually(lambda: rows(desk, f"SELECT count(*) FROM predictions WHERE id = '{answer['id']}'") == [(1,)], 10)
    stored = bytes_of_store(desk.home)
    assert b"charge [card]" in stored
    assert [secret for secret in secrets if secret.encode() in stored] == []


def test_a_user_is_erased_on_request(desk: Server) -> None:
    user = "customer-erase-me"
    answer = predict(desk, user=user, text="remember the heron on my parcel")
    body = {**GOOD, "text": "the heron again", "user": user}
    assert desk.post(FEEDBACK, json=body).status_code == 202
    assert b"the heron again" in bytes_of_store(desk.home)
    erased = desk.post(f"{OPERATIONS}/erase", json={"user": user, "reason": "asked by mail"})
    assert erased.status_code == 200, erased.text
    assert rows(desk, "SELECT count(*) FROM feedback WHERE text LIKE '%heron%'") == [(0,)]
    assert rows(desk, f"SELECT count(*) FROM predictions WHERE id = '{answer['id']}'") == [(0,)]
    assert b"heron" not in bytes_of_store(desk.home)


def test_a_user_is_erased_by_whichever_name_and_entrance(desk: Server) -> None:
    """Headers in UTF-8, Latin-1 or percent-encoded, JSON with composed letters or without, either user of a ranking."""
    name = "Jürgen-Groß-17"
    apart = unicodedata.normalize("NFD", name)
    headers = [name.encode(), apart.encode(), name.encode("latin-1"), quote(name).encode()]
    ids = [
        desk.post(f"{MODEL}/predict", json={"text": "the ibis"}, headers={"x-user-id": header}).json()["id"]
        for header in headers
    ]
    rankings = [(name, {}), (apart, {}), (name, {"x-user-id": "a shop"}), ("a guest", {"x-user-id": name.encode()})]
    for user, header in rankings:
        body = {"user": {"id": user}, "candidates": [{"id": "ibis", "text": "an ibis"}]}
        ids.append(desk.post("/v2/models/recommendation/predict", json=body, headers=header).json()["id"])
    corrections = [
        ({"user": apart}, {}),
        ({}, {"x-user-id": quote(name)}),
        ({"user": "an agent"}, {"x-user-id": quote(name)}),
    ]
    for number, (user, header) in enumerate(corrections):
        body = {**GOOD, "text": f"ibis {number}", **user}
        assert desk.post(FEEDBACK, json=body, headers=header).status_code == 202
    kept = ", ".join(f"'{id_}'" for id_ in ids)
    eventually(lambda: rows(desk, f"SELECT count(*) FROM predictions WHERE id IN ({kept})") == [(8,)], 10)
    erased = desk.post(f"{OPERATIONS}/erase", json={"user": f" {name}"}).json()
    assert (erased["predictions"], erased["feedback"]) == (8, 3)
    assert rows(desk, f"SELECT count(*) FROM predictions WHERE id IN ({kept})") == [(0,)]
    assert b"ibis" not in bytes_of_store(desk.home)
    later = refused(desk.post(FEEDBACK, json={**GOOD, "user": quote(name)}), 410, "gone")
    assert "erased" in later["error"]


def test_whoever_can_be_logged_can_be_erased(desk: Server) -> None:
    name = "u" * 5_000
    predict(desk, user=name, text="of a long name")
    assert desk.post(FEEDBACK, json={**GOOD, "text": "of a long name", "user": name}).status_code == 202
    assert desk.post(f"{OPERATIONS}/erase", json={"user": name}).json()["feedback"] == 1
    for blank in ("", " ", "%20"):
        refused(desk.post(f"{OPERATIONS}/erase", json={"user": blank}), 422, "invalid_request")


def test_the_command_line_erases_a_name_of_any_bytes(desk: Server) -> None:
    """A shell sends UTF-8, whatever the locale says, or Latin-1 in a terminal of that kind."""
    program = Path(sys.executable).with_name("flywheel")
    for user, encoding, locale in (("Zoë Müller", "utf-8", "C"), ("Jörg Müller", "latin-1", "C.UTF-8")):
        argument = user.encode(encoding)
        assert desk.post(FEEDBACK, json={**GOOD, "text": "of the command line", "user": user}).status_code == 202
        environment = {**os.environ, "FLYWHEEL_HOME": str(desk.home), "LC_ALL": locale}
        done = subprocess.run([program, "erase", argument], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert ", 1 corrections" in done.stdout


def test_corrections_and_opinions_survive_the_death_of_every_process(home: Path, tmp_path: Path) -> None:
    server = start_server(home, tmp_path / "log", FLYWHEEL_LEARNING__AUTOMATIC="false")
    negative = opinions_are_counted_and_surge(server)
    tell(server, negative)  # known already: each is counted once
    tell(server, [{**document, "document_id": f"late {i}"} for i, document in enumerate(negative[:5])])
    stream = DocumentStream(server)
    stream.start()
    time.sleep(3)  # the controller counts every two seconds
    assert server.post(FEEDBACK, json={**GOOD, "text": "the last words"}).status_code == 202
    killed = time.monotonic()
    haproxy = kill_all_but_haproxy(server)
    stream.join(30)
    answered = {id_ for id_, at in stream.answered.items() if at < killed - 1}
    assert len(answered) > 10
    assert rows(server, "SELECT count(*) FROM feedback WHERE text = 'the last words'") == [(1,)]
    eventually(lambda: not Path(f"/proc/{haproxy}").exists(), 5)  # or it would keep the port
    with closing(Store(f"sqlite:///{home / 'feedback.db'}")) as store:
        controller = OpinionMonitor(Config(home=home), store)  # as the next server has it
        controller.step()
        controller.step()
        stored = {
            id_ for (id_,) in rows(server, "SELECT document_id FROM opinion_documents WHERE topics = '[\"cruises\"]'")
        }
        assert answered <= stored <= stream.sent
        counts = store.opinion.counts_since("sentiment", ["airlines", "cruises"], 0)
        assert (counts["airlines"].texts, counts["cruises"].texts) == (100 + 12 + 5, len(stored))
        assert [alert.topic for alert in store.opinion_alerts.alerts("sentiment")] == ["airlines"]


class DocumentStream(threading.Thread):
    """Sends documents until the server is gone, each of them in two requests."""

    def __init__(self, server: Server):
        super().__init__(daemon=True)
        self._server = server
        self.sent: set[str] = set()
        self.answered: dict[str, float] = {}
        """by id: time.monotonic when the first answer came"""

    def run(self) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30) as client, suppress(httpx.HTTPError):
            for number in itertools.count():
                ids = [f"stream {number}", f"stream {number + 1}"]
                self.sent.update(ids)
                documents = [
                    {"text": f"Velmora to publish its calendar on gate {id_}", "topic": "cruises", "document_id": id_}
                    for id_ in ids
                ]
                client.post("/v2/models/sentiment/predict", json={"documents": documents}).raise_for_status()
                for id_ in ids:
                    self.answered.setdefault(id_, time.monotonic())
                time.sleep(0.02)


def tell(server: Server, documents: list[dict[str, Any]]) -> list[str]:
    """Send documents; the labels that they got."""
    answer = server.post("/v2/models/sentiment/predict", json={"documents": documents})
    assert answer.status_code == 200, answer.text
    return [prediction["label"] for prediction in answer.json()["predictions"]]


def opinions_are_counted_and_surge(server: Server) -> list[dict[str, Any]]:
    """A hundred quiet hours and twelve bad stories are in trends, topics and alerts; the bad ones."""
    now = datetime.now(UTC)

    def document(text: str, number: int, hours: float) -> dict[str, Any]:
        published = (now - timedelta(hours=hours)).isoformat()
        words = f"{text} {4800 + number}"
        return {"text": words, "topic": "airlines", "published": published, "document_id": f"{text}/{number}"}

    quiet = [document("Velmora to publish its calendar on gate", hour, hour) for hour in range(1, 101)]
    bad = [document("Velmora shares plunge as loss widens and flights are cancelled, row", i, 0) for i in range(12)]
    assert "negative" not in tell(server, quiet)
    assert set(tell(server, bad)) == {"negative"}
    alerts = "/v2/opinion/alerts?active=true"
    eventually(lambda: [alert["observed"] for alert in server.get(alerts).json()["alerts"]] == [12], 15)
    (alert,) = server.get(alerts).json()["alerts"]
    assert (alert["topic"], alert["kind"], len(alert["examples"])) == ("airlines", "negative_surge", 5)
    assert set(alert["examples"]) < {document["document_id"] for document in bad}
    points = server.get("/v2/opinion/trends?topic=airlines").json()["points"]
    assert sum(point["texts"] for point in points) == 100 + 12
    assert sum(point["negative"] for point in points) == 12
    (topic,) = server.get("/v2/opinion/topics").json()["topics"]
    assert (topic["topic"], topic["week"]["stories"]) == ("airlines", 100 + 12)
    metrics = server.get("/metrics").text
    assert 'flywheel_opinion_texts_total{label="negative",topic="other"} 12.0' in metrics  # no file of topics
    return bad


def kill_all_but_haproxy(server: Server) -> int:
    """The raylet first: while it lives it ends what its workers have started. Returns HAProxy's process."""
    pid = server.process.pid
    (haproxy,) = children(pid, "haproxy -db")
    others = [process for process in children(pid, "") if process != haproxy]
    for victim in [*children(pid, "raylet/raylet"), *others, pid]:
        os.kill(victim, signal.SIGKILL)
    server.process.wait()
    return haproxy


def while_out(server: Server) -> str:
    """Feedback is refused with a time to come again, predictions go on; the id of one that was made meanwhile."""
    response = server.post(FEEDBACK, json={**GOOD, "text": "while it is out"})
    assert "store" in refused(response, 503, "not_ready")["error"]
    assert int(response.headers["retry-after"]) > 0
    answer = predict(server, text="asked while it is out")
    assert answer["predictions"]
    return str(answer["id"])


def afterwards(server: Server, id_: str) -> None:
    """Feedback is taken again, for what was answered meanwhile too: nothing of that was lost."""
    eventually(lambda: server.post(FEEDBACK, json=GOOD).status_code == 202, 30)
    correction = {"id": id_, "label": "track_order", "source": "desk", "consent": True}
    eventually(lambda: server.post(FEEDBACK, json=correction).status_code == 202, 30)


def test_a_locked_or_full_store_refuses_feedback_and_not_predictions(home: Path, tmp_path: Path) -> None:
    server = start_server(home, tmp_path / "log", tasks=["intent"], FLYWHEEL_LEARNING__AUTOMATIC="false")
    try:
        assert server.post(FEEDBACK, json=GOOD).status_code == 202
        database = sqlite3.connect(home / "feedback.db", isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        locked = while_out(server)
        database.execute("ROLLBACK")
        database.close()
        afterwards(server, locked)
        with small_files(server, (home / "feedback.db").stat().st_size):
            full = while_out(server)
        afterwards(server, full)
    finally:
        stop_server(server)


@contextmanager
def small_files(server: Server, size: int) -> Iterator[None]:
    """The kernel lets no replica write further than `size` bytes into a file, as if the disk were full."""
    pids = replicas(server.process.pid)
    before = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in pids}
    for pid, (_, hard) in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    yield
    for pid, limits in before.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


def test_predictions_go_on_while_postgresql_is_away(home: Path, tmp_path: Path) -> None:
    try:
        with postgres_server() as postgres:
            url = postgres.new_database()
            server = start_server(
                home,
                tmp_path / "log",
                tasks=["intent"],
                FLYWHEEL_LEARNING__AUTOMATIC="false",
                FLYWHEEL_FEEDBACK__STORE=url,
            )
            try:
                assert server.post(FEEDBACK, json=GOOD).status_code == 202
                postgres.stop()
                id_ = while_out(server)
                moved = server.post(f"{OPERATIONS}/challenge", json={"version": "1", "mode": "shadow"})
                refused(moved, 409, "conflict")  # for what it asks, not for the store
                postgres.start()
                afterwards(server, id_)
            finally:
                stop_server(server)
    except PostgresMissing as missing:
        pytest.skip(str(missing))


def test_a_retraining_that_never_was_has_no_progress(desk: Server) -> None:
    assert desk.get(f"{OPERATIONS}/retrain").json() == {"state": "never", "requests": []}


def test_metrics_count_what_became_of_corrections(desk: Server) -> None:
    desk.post(FEEDBACK, json={**GOOD, "text": "for the metrics"})
    pattern = r'^flywheel_feedback_total\{status="accepted",task="intent"\} (\S+)$'
    eventually(lambda: sum(map(float, re.findall(pattern, desk.get("/metrics").text, re.MULTILINE))) >= 1, 10)
    waiting = 'flywheel_corrections{state="waiting",task="intent"} '
    eventually(lambda: f"{waiting}{float(states(desk)['waiting'])}" in desk.get("/metrics").text, 10)


def test_what_to_label_next_is_gone_once_it_is_labelled(desk: Server) -> None:
    model, list_ = "/v2/models/sentiment", "/v2/review/sentiment"
    texts = ["The board met on Tuesday in Oslo.", "Mail ann@example.com about the merger.", "Shares fell."]
    answer = desk.post(f"{model}/predict", json={"texts": texts}).json()

    def listed() -> dict[int, dict[str, Any]]:
        entries = desk.get(list_).json()["review"]
        return {entry["index"]: entry for entry in entries if entry["id"] == answer["id"]}

    eventually(lambda: len(listed()) == 3, 10)  # written after half a second
    found = listed()
    assert {entry["text"] for entry in found.values()} == {texts[0], "Mail [email] about the merger.", texts[2]}
    correction = {"id": answer["id"], "index": 1, "label": "neutral", "source": "review", "consent": True}
    assert desk.post(f"{model}/feedback", json=correction).status_code == 202
    assert set(listed()) == {0, 2}
    assert_error(desk.get(f"{list_}?limit=0"), 422)
    assert_error(desk.get("/v2/review/recommendation"), 404)


def test_a_discovery_runs_beside_the_server(desk: Server) -> None:
    predict(desk, texts=[f"the turnstile rejects wristband {word}" for word in ("a", "b", "c", "d", "e", "f")])
    eventually(lambda: desk.get("/v2/discovery/intent").status_code == 200, 150)
    answer = desk.get("/v2/discovery/intent").json()
    assert answer["champion"] == "1"
    assert set(answer) == {"task", "champion", "texts", "unsure", "computed", "proposals", "overlaps"}
    assert all(overlap["holdout"]["texts"] for overlap in answer["overlaps"])
