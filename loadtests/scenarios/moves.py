"""Promotion, rollback and a canary while 32 connections send predict requests.

    python loadtests/scenarios/moves.py    about a minute; needs trained models (make serve trains them)

The second version is a copy of the first under another number. Prints each figure beside its bound and exits 1 when one
is missed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests.scenarios.world import Body, Flywheel, Row, Traffic, copy_of_models, eventually, serving_intent, show

MODEL = "/v2/models/intent"
OPERATIONS = "/v2/repository/models/intent"
CONNECTIONS, SHARE, REQUESTS, USERS, AT_ONCE = 32, 0.1, 5000, 2500, 8
WITHIN_S = 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = copy_of_models(Path(folder) / "home")
        bundles = home / "bundles" / "intent"
        # A second version as after its registration: with its copy of the weights that replicas map.
        for folder in (bundles, bundles / ".packed"):
            shutil.copytree(folder / "1", folder / "2")
        quiet = {"FLYWHEEL_LEARNING__AUTOMATIC": "false", "FLYWHEEL_ROLLOUT__AUTOMATIC": "false"}
        with serving_intent(home, **quiet) as server:
            return show([*_under_load(server), *_canary(server)])


def _request(number: int) -> tuple[Body, dict[str, str]]:
    return {"text": f"where is parcel {number % 400}"}, {}


def _under_load(server: Flywheel) -> list[Row]:
    rows = []
    client = server.client()
    with Traffic(server, f"{MODEL}/predict", _request, CONNECTIONS) as traffic:
        time.sleep(2)
        for action, body, version in (("promote", {"version": "2"}, "2"), ("rollback", {}, "1")):
            began = time.monotonic()
            client.must(f"{OPERATIONS}/{action}", {**body, "actor": "moves.py", "reason": "the scenario"})
            seconds = eventually(lambda v=version: _only(traffic, v), 30, every=0.1)  # type: ignore[misc]
            rows.append(Row(f"{action}: seconds until every answer is of version {version}",
                            time.monotonic() - began if seconds < 30 else 1e9, "<=", WITHIN_S))  # fmt: skip
        time.sleep(1)
    rows.append(Row(f"requests that failed, of {sum(traffic.statuses.values())}", traffic.failed, "<=", 0))
    return rows


def _only(traffic: Traffic, version: str) -> bool:
    """Whether all answers of the next half second, at least 20, are by this version."""
    before = Counter(traffic.versions)
    time.sleep(0.5)
    new = traffic.versions - before
    return sum(new.values()) >= 20 and set(new) == {version}


def _canary(server: Flywheel) -> list[Row]:
    client = server.client()
    client.must(f"{OPERATIONS}/challenge", {"version": "2", "mode": "canary", "share": SHARE})
    eventually(lambda: len(client.must(MODEL)["versions"]) == 2, 10)
    time.sleep(2)  # by then every replica has loaded it
    of_user: dict[str, set[str]] = defaultdict(set)

    def ask(numbers: range) -> None:
        connection = server.client()
        for number in numbers:
            user = f"user {number % USERS}"
            answer = connection.must(f"{MODEL}/predict", {"text": "where is my parcel"}, {"x-user-id": user})
            of_user[user].add(answer["model_version"])

    with ThreadPoolExecutor(AT_ONCE) as pool:  # one request at a time would always go to the same replica
        list(pool.map(ask, [range(start, REQUESTS, AT_ONCE) for start in range(AT_ONCE)]))
    share = sum("2" in versions for versions in of_user.values()) / len(of_user)
    return [
        Row(f"canary of {SHARE:.0%}: points away from it, over {REQUESTS} requests", 100 * abs(share - SHARE), "<=", 2),
        Row(
            "users that were answered by both versions",
            sum(len(versions) > 1 for versions in of_user.values()),
            "<=",
            0,
        ),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
