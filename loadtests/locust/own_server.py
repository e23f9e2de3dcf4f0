"""A server for one load test: a copy of the home's models, topics, and a knowledge base."""

from __future__ import annotations

import csv
import json
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtests.scenarios.world import eventually, serving
from loadtests.texts import ROOT

TOPICS, QUESTIONS = ROOT / "deploy" / "topics.example.yaml", ROOT / "loadtests" / "quality" / "data" / "faq.csv"
_ENTRIES, _FOUND_WITHIN_S = 500, 180
_WITH_KNOWLEDGE = ("support_desk", "everything")
# Retrainings only when they are asked for; a canary that decides within a run, on enough users to be compared.
_SETTINGS: dict[str, Any] = {
    "tasks": {"intent": {}, "sentiment": {"options": {"topics": str(TOPICS)}}, "recommendation": {}},
    "learning": {"automatic": False},
    "rollout": {"canary_fraction": 0.3, "min_duration_s": 20},
}


@contextmanager
def own_server(models: Path, folder: Path, scenario: str, token: str = "") -> Iterator[str]:
    """The address of a server on loopback, until the block ends; it is ready. Exits when there are no models."""
    if not (models / "releases" / "intent.json").is_file():
        sys.exit(f"There are no models in {models} yet. Run: make serve (it trains them).")
    own = folder / "home"
    for part in ("releases", "bundles"):
        shutil.copytree(models / part, own / part)
    if scenario == "everything":
        add_spare_versions(own)
    print(f"\nstarting a server for {scenario} on a copy of {models}", flush=True)
    with serving(own, _SETTINGS) as server:
        url = f"http://127.0.0.1:{server.port}"
        if scenario in _WITH_KNOWLEDGE:
            fill_knowledge_base(url, token)
        yield url


def add_spare_versions(models: Path) -> None:
    """A second version of each task, the same as its champion: there is one to move also when the gate refuses."""
    for file in (models / "releases").glob("*.json"):
        release = json.loads(file.read_text(encoding="utf-8"))
        champion = models / release["versions"][release["champion"]]
        number = max(int(folder.name) for folder in champion.parent.iterdir() if folder.name.isdecimal()) + 1
        shutil.copytree(champion, champion.with_name(str(number)))


def fill_knowledge_base(url: str, token: str = "") -> None:
    """Store questions with their answers, and wait until they can be found."""
    with QUESTIONS.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))[:_ENTRIES]
    entries = [{"id": row["id"], "question": row["question"], "answer": row["answer"]} for row in rows]
    _call(f"{url}/v2/knowledge", {"entries": entries, "actor": "load test"}, "PUT", token)
    seconds = eventually(lambda: not _call(f"{url}/v2/knowledge?limit=1", token=token)["waiting"], _FOUND_WITHIN_S)
    if seconds == float("inf"):
        sys.exit(f"the {len(entries)} entries of the knowledge base could not be found after {_FOUND_WITHIN_S} s")
    print(f"the knowledge base has {len(entries)} entries, found after {seconds:.0f} s", flush=True)


def _call(url: str, body: Any = None, method: str = "GET", token: str = "") -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {token}"} if token else {})
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)
