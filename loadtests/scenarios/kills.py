"""5,000 corrections while replicas and the server are killed at random: each confirmed one must be stored once.

    python loadtests/scenarios/kills.py    some ten minutes; needs trained models (make serve trains them)

Clients post one correction at a time and retry until it is confirmed. Every second correction has a text, the others
the id of an answer; if a kill lost the answer before it was logged, the client asks for a new one. Twenty times a
replica, or the whole server with all its processes, is ended by SIGKILL; the server is then started again.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests.faults import replicas
from loadtests.scenarios.world import Flywheel, Row, copy_of_models, serving_intent, show

MODEL = "/v2/models/intent"
CLIENTS = 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=5000, help="corrections (default 5000)")
    parser.add_argument("--kills", type=int, default=20, help="kills (default 20)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = copy_of_models(Path(folder) / "home")
        quiet = {"FLYWHEEL_LEARNING__AUTOMATIC": "false"}
        with serving_intent(home, **quiet) as server:
            confirmed, tries, again, kills = _post_and_kill(server, options.posts, options.kills)
        with sqlite3.connect(home / "feedback.db") as database:
            stored = [row[0] for row in database.execute("SELECT coalesce(prediction_id, text) FROM feedback")]
            by_id = {row[0] for row in database.execute("SELECT prediction_id FROM feedback")}
    return show([
        Row("corrections confirmed", len(confirmed), ">=", options.posts),
        Row("of these, by the id of an answer", len(confirmed & by_id), ">=", options.posts // 2),
        Row("kills", kills, ">=", options.kills),
        Row("attempts that a kill interrupted, and were retried", tries - len(confirmed), ">=", 1),
        Row("of these, stored before the kill and reported as duplicate", again, ">=", 1),
        Row("confirmed and not in the store", len(confirmed - set(stored)), "<=", 0),
        Row("in the store twice", len(stored) - len(set(stored)), "<=", 0),
    ])  # fmt: skip


def _post_and_kill(server: Flywheel, posts: int, kills: int) -> tuple[set[str], int, int, int]:
    """Returns the texts and ids of confirmed corrections, and the numbers of attempts, of duplicates and of kills."""
    confirmed: set[str] = set()
    lock, tries, again, next_ = threading.Lock(), [0], [0], iter(range(posts))
    done, draw = 0, random.Random(5)

    def client() -> None:
        connection = server.client()
        while True:
            with lock:
                number = next(next_, None)
            if number is None:
                return
            # The number in words: digits of this length would be redacted as personal data.
            text = "parcel " + " ".join(_WORDS[int(digit)] for digit in str(number))
            while number >= posts * (done + 2) / (kills + 1) and done < kills:
                time.sleep(0.01)  # so that posts are in flight at every kill, the last included
            body = {"label": "track_order", "source": "kills", "consent": True}
            if number % 2 == 0:
                body["text"] = text
            while True:
                if "text" not in body and "id" not in body:
                    status, answer = connection.ask(f"{MODEL}/predict", {"text": text})
                    if status != 200:
                        time.sleep(0.05)
                        continue
                    body["id"] = answer["id"]
                status, receipt = connection.ask(f"{MODEL}/feedback", body)
                with lock:
                    tries[0] += 1
                    again[0] += status == 202 and receipt["status"] == "duplicate"
                    if status == 202:
                        confirmed.add(str(body.get("id", text)))
                if status == 202:
                    break
                if status == 404:
                    body.pop("id", None)
                time.sleep(0.05)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    while done < kills:
        while len(confirmed) < posts * (done + 1) / (kills + 1):
            time.sleep(0.02)
        if draw.random() < 0.75 and (found := replicas(server.process.pid)):
            os.kill(draw.choice(found), signal.SIGKILL)
        else:
            _kill_all(server)
            server.start()
        done += 1
        print(f"{time.strftime('%H:%M:%S')} kill {done}/{kills}, {len(confirmed)} confirmed", flush=True)
    for thread in threads:
        thread.join()
    return confirmed, tries[0], again[0], done


def _kill_all(server: Flywheel) -> None:
    """The server's process and all its descendants, at once."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    children: dict[int, list[int]] = {}
    for line in listing.splitlines():
        pid, parent = map(int, line.split())
        children.setdefault(parent, []).append(pid)
    victims, todo = [], [server.process.pid]
    while todo:
        victims.append(todo.pop())
        todo += children.get(victims[-1], [])
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    server.process.wait()


_WORDS = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

if __name__ == "__main__":
    raise SystemExit(main())
