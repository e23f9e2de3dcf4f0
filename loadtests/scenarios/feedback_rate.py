"""Measures how many corrections a server accepts a second, and how much the prediction log slows predict.

    python loadtests/scenarios/feedback_rate.py    about three minutes; needs trained models (make serve trains them)

Corrections by text, one a request over 32 connections, then 100 a request over 4; then predict at 64 connections with
the log on and off, in turns, on two servers that run at the same time. Prints each figure beside its bound and exits 1
when one is missed.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests import drivers
from loadtests.drivers import Call
from loadtests.scenarios.world import Client, Flywheel, Row, copy_of_models, serving_intent, show
from loadtests.servers import FLYWHEEL
from loadtests.texts import load_texts

MODEL = "/v2/models/intent"
SINGLE, BATCHES, BATCH = 32, 4, 100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="length of each measurement (default %(default)s)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=11,
        help="rounds that compare predict with and without the log (default %(default)s)",
    )
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        home = copy_of_models(Path(folder) / "on")
        quiet = {"FLYWHEEL_LEARNING__AUTOMATIC": "false", "FLYWHEEL_CACHE__TEXTS": "0"}
        with serving_intent(home, **quiet) as server:
            rows += _rates(server, options.seconds)
            with serving_intent(
                copy_of_models(Path(folder) / "off"), FLYWHEEL_FEEDBACK__LOG__SAMPLE="0", **quiet
            ) as without:
                rows.append(_cost_of_log(server, without, options.seconds / 2, options.rounds))
    return show(rows)


def _rates(server: Flywheel, seconds: float) -> list[Row]:
    numbers = itertools.count()

    def text(number: int) -> dict[str, object]:
        return {"text": f"where is parcel {number}", "label": "track_order", "source": "bench", "consent": True}

    def single(client: Client) -> int:
        return int(client.ask(f"{MODEL}/feedback", text(next(numbers)))[0] == 202)

    def batch(client: Client) -> int:
        items = [text(next(numbers)) for _ in range(BATCH)]
        status, answer = client.ask(f"{MODEL}/feedback", {"feedback": items})
        return int(answer["taken"]) if status == 202 else 0

    before = server.client().must(f"{MODEL}/feedback")["states"]["waiting"]
    singles, one = _rate(server, single, SINGLE, seconds)
    batches, many = _rate(server, batch, BATCHES, seconds)
    stored = server.client().must(f"{MODEL}/feedback")["states"]["waiting"] - before
    return [
        Row(f"single posts a second, {SINGLE} connections", one, ">=", 500),
        Row(f"samples a second in batches of {BATCH}, {BATCHES} connections", many, ">=", 5000),
        Row("confirmed, but not in the store", singles + batches - stored, "<=", 0),
    ]


def _rate(server: Flywheel, send: Callable[[Client], int], connections: int, seconds: float) -> tuple[int, float]:
    """How many corrections were confirmed, and how many a second."""
    taken: list[int] = []
    until = time.monotonic() + seconds

    def run() -> None:
        client, count = server.client(), 0
        while time.monotonic() < until:
            count += send(client)
        taken.append(count)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(taken), sum(taken) / (time.monotonic() - began)


def _cost_of_log(logging: Flywheel, without: Flywheel, seconds: float, rounds: int) -> Row:
    texts, _ = load_texts()
    calls = [Call(FLYWHEEL.path, FLYWHEEL.body([text])) for text in texts]

    def rps(server: Flywheel) -> float:
        return float(drivers.load(f"http://127.0.0.1:{server.port}", calls, 64, seconds)["rps"])

    rps(logging), rps(without)
    ratios = []
    for number in range(rounds):
        pair = (logging, without) if number % 2 else (without, logging)
        found = {server.port: rps(server) for server in pair}
        ratios.append(found[logging.port] / found[without.port])
    print("predict with the log over predict without it, by round:", ", ".join(f"{ratio:.3f}" for ratio in ratios))
    return Row("predict with the prediction log on over off (median)", statistics.median(ratios), ">=", 0.95)


if __name__ == "__main__":
    raise SystemExit(main())
