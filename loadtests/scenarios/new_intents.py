"""New intents: corrections bring ten intents that the champion was not trained on, and the loop learns them by itself.

    python loadtests/scenarios/new_intents.py                     about 20 minutes, with its own first training
    python loadtests/scenarios/new_intents.py --home /tmp/banking   keeps the trained champion for the next run

The champion is trained on Banking77 without 10 of its 77 intents. Then clients send texts of the ten and correct the
answers over HTTP: 10 % with a wrong label, 20 % twice, some with personal data in them. Other clients keep sending
predict requests. The server retrains, gates, runs a canary and promotes without an operator. Texts of the test split
are only used for predictions. Prints each figure beside its bound and exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests.scenarios.world import Client, Flywheel, Row, Traffic, eventually, files_with, serving_intent, show
from loadtests.texts import BANKING77

MODEL = "/v2/models/intent"
OPERATIONS = "/v2/repository/models/intent"
NEW, WRONG, TWICE, MAX_MINUTES = 10, 0.1, 0.2, 15
SOURCES = ("desk-north", "desk-south", "desk-west")
# Eight kinds of personal data; afterwards all files that the server has written are searched for their bytes.
PERSONAL = {
    "e-mail": "rosalind.achterberg@example.org",
    "phone": "+44 7700 900461",
    "card": "4556 7375 8689 9855",
    "IBAN": "DE89 3704 0044 0532 0130 00",
    "IPv4": "203.0.113.77",
    "IPv6": "2001:db8:85a3::8a2e:370:7334",
    "national id": "078-05-1120",
    "name": "Rosalind Achterberg",
}
_CARRIERS = {"name": "My name is {}. ", "national id": "My SSN is {}. ", "phone": "Call me on {}. "}


class Text(NamedTuple):
    text: str
    label: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, help="keeps the champion and the server's home; default: a temporary directory"
    )
    options = parser.parse_args()
    if not BANKING77.is_dir():
        sys.exit(f"this needs Banking77 in {BANKING77}")
    train, test = (read_texts(BANKING77 / name) for name in ("train.csv", "test.csv"))
    new = set(random.Random(7).sample(sorted({text.label for text in train}), NEW))
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).resolve()
        train_champion(home, [text for text in train if text.label not in new])
        server_home = fresh_home(home)
        with serving_intent(
            server_home,
            new_labels=True,
            FLYWHEEL_LEARNING__MIN_NEW_SAMPLES="1600",  # of 1,643, so that one run has nearly all of them
            FLYWHEEL_LEARNING__ON_DRIFT="false",  # else the first fifty would start a run
            FLYWHEEL_ROLLOUT__MIN_DURATION_S="20",
            FLYWHEEL_ROLLOUT__MIN_ANSWERS="100",
            FLYWHEEL_ROLLOUT__CANARY_FRACTION="0.2",
        ) as server:
            return show(_run_loop(server, server_home, train, test, new))


def _run_loop(server: Flywheel, home: Path, train: Sequence[Text], test: Sequence[Text], new: set[str]) -> list[Row]:
    old_before, _ = _recalls(server, test, new)
    log(f"before: {old_before:.2f} % of the old intents' test texts get the right label")
    asked = [text.text for text in train if text.label not in new]

    def request(number: int) -> tuple[dict[str, str], dict[str, str]]:
        return {"text": asked[number % len(asked)]}, {"x-user-id": f"visitor {number % 500}"}

    corrections = _corrections([text for text in train if text.label in new], sorted({t.label for t in train}))
    began = time.monotonic()
    with Traffic(server, f"{MODEL}/predict", request, connections=4, pause_s=0.2) as traffic:
        refused = _send(server, corrections)
        log(f"{len(corrections)} corrections sent, {refused} refused; waiting for a version that learned from them")
        client = server.client()
        seconds = eventually(lambda: champion(client) != "1", MAX_MINUTES * 60, every=1.0)
        took = time.monotonic() - began
        log(f"version {champion(client)} after {took / 60:.1f} minutes; {client.must(f'{MODEL}/feedback')['states']}")
        for entry in reversed(client.must(f"{OPERATIONS}/audit")["audit"]):
            log(f"  {entry['at'][11:19]}  {entry['action']:16} {entry['version'] or '':3} {entry['reason'][:160]}")
    old_after, new_after = _recalls(server, test, new)
    ray_logs = Path("/tmp/ray").resolve()
    leaks = files_with(list(PERSONAL.values()), [home, *([ray_logs] if ray_logs.is_dir() else [])])
    for needle, files in leaks.items():
        log(f"  {needle!r} is in {files[:3]}")
    return [
        Row(
            "minutes from the first correction to the promotion",
            took / 60 if seconds < 1e9 else 1e9,
            "<=",
            MAX_MINUTES,
        ),
        Row("new intents: recall on the test split, %", new_after, ">=", 85),
        Row("old intents: points lost on the test split", old_before - old_after, "<=", 1),
        Row("predict requests that failed meanwhile", traffic.failed, "<=", 0),
        Row("corrections that were refused", refused, "<=", 0),
        Row("kinds of personal data found in the files", len(leaks), "<=", 0),
    ]


def train_champion(home: Path, texts: Sequence[Text]) -> None:
    """Train the champion, once for each `home`; a tenth of each intent is the gate's holdout."""
    if (home / "champion" / "releases" / "intent.json").is_file():
        return
    (home / "champion").mkdir(parents=True, exist_ok=True)
    corpus = home / "corpus.csv"
    with corpus.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label", "split"))
        for text in texts:
            digest = hashlib.sha256(" ".join(text.text.lower().split()).encode()).digest()
            rows.writerow((*text, "holdout" if digest[0] < 26 else "train"))
    log("training the champion on 67 intents, once")
    flywheel = Path(sys.executable).parent / "flywheel"
    command = [flywheel, "train", "intent", "--data", corpus]
    subprocess.run(command, check=True, env={**os.environ, "FLYWHEEL_HOME": str(home / "champion")})


def fresh_home(home: Path) -> Path:
    """A new home with the champion and without feedback."""
    new = home / "server"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(home / "champion", new, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts", "work"))
    return new


def _corrections(texts: Sequence[Text], labels: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """(text to ask, correction without its id), in random order: some wrong, some twice, some with personal data."""
    draw = random.Random(1)
    personal = list(PERSONAL.items())
    chosen = []
    for number, text in enumerate(texts):
        label = draw.choice([other for other in labels if other != text.label]) if draw.random() < WRONG else text.label
        asked = text.text
        if number % 40 == 0:
            kind, value = personal[number // 40 % len(personal)]
            asked = _CARRIERS.get(kind, "You have {} of me. ").format(value) + asked
        chosen += [(asked, label)] * (2 if draw.random() < TWICE else 1)
    draw.shuffle(chosen)
    return [
        (text, {"label": label, "source": draw.choice(SOURCES), "user": f"customer {number % 300}"})
        for number, (text, label) in enumerate(chosen)
    ]


def _send(server: Flywheel, corrections: Sequence[tuple[str, dict[str, str]]]) -> int:
    """Send each text to predict, then correct the answer, as a support desk does. Returns how many were refused."""

    def one(client: Client, text: str, correction: dict[str, str]) -> int:
        status, answer = client.ask(f"{MODEL}/predict", {"text": text}, {"x-user-id": correction["user"]})
        if status != 200:
            return 1
        body = {**correction, "id": answer["id"], "consent": True}
        return int(client.ask(f"{MODEL}/feedback", body)[0] != 202)

    def many(part: Sequence[tuple[str, dict[str, str]]]) -> int:
        client = server.client()
        return sum(one(client, text, correction) for text, correction in part)

    with ThreadPoolExecutor(4) as pool:
        return sum(pool.map(many, [corrections[start::4] for start in range(4)]))


def _recalls(server: Flywheel, test: Sequence[Text], new: set[str]) -> tuple[float, float]:
    """Percent of the test texts with the right label: of the old intents, and of the new ones."""
    client, right, count = server.client(), [0, 0], [0, 0]
    for start in range(0, len(test), 32):
        part = test[start : start + 32]
        answer = client.must(f"{MODEL}/predict", {"texts": [text.text for text in part]})
        for text, prediction in zip(part, answer["predictions"], strict=True):
            count[text.label in new] += 1
            right[text.label in new] += prediction["label"] == text.label
    return 100 * right[0] / count[0], 100 * right[1] / count[1]


def champion(client: Client) -> str:
    status, metadata = client.ask(MODEL)
    if status != 200:
        return "1"
    return str(next(v["version"] for v in metadata["version_details"] if v["alias"] == "champion"))


def read_texts(file: Path) -> list[Text]:
    with file.open(encoding="utf-8", newline="") as opened:
        return [Text(row["text"], row["label"]) for row in csv.DictReader(opened)]


def log(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
