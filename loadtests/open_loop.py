"""Open-loop load: requests are sent when they are due, however late the answers are.

    overload   three times the server's capacity: it must answer accepted requests in time, and refuse the rest at once
    soak       a steady load on all three tasks for a long time: no error, and no growth of memory

A client that sends its next request after the last answer slows down with the server, and so hides how long users would
wait. Here arrivals are a Poisson process with a given rate, and latency counts from the moment a request was due, not
from when this client sent it. No text is sent twice, so none is a cache hit. Both functions return figures and `met`;
the command exits 1 when a bound is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import threading
from collections.abc import Iterator, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from loadtests.arrivals import OpenLoop, OpenLoopResult, new_event_loop, percentile
from loadtests.servers import memory_mb
from loadtests.texts import load_texts, rankings, seed_texts

TASKS = ("intent", "sentiment", "recommendation")
OVERLOAD = 3.0
SHED_MS = 50.0
GROWTH = 0.03
LATE_MS = 10.0  # p99 above which the client reports that it was late itself


def overload(
    url: str, capacity_rps: float, seconds: float = 60, target_s: float = 1.0, texts: Sequence[str] | None = None
) -> dict[str, Any]:
    """One-text intent requests at three times `capacity_rps`; `target_s` is the server's `limits.wait_s`.

    They are `texts`, by default those of `load_texts`, each with a word of another.

    Times are milliseconds from the moment a request was due; None if there was no such answer. `shed` counts answers
    503 with code `overloaded` and Retry-After; `other` all other answers but 200; `lost` broken connections; `hung`
    requests without an answer within 15 s.
    """
    # Enough connections for twice the requests that the server accepts to wait.
    connections = int(100 + capacity_rps * target_s * 2)
    outcome = offer(url, OVERLOAD * capacity_rps, seconds, connections=connections, texts=texts)
    result = outcome.counts() | {
        **{f"accepted_p{q}_ms": percentile(outcome.accepted, q) for q in (50, 95, 99)},
        **{f"shed_p{q}_ms": percentile(outcome.shed, q) for q in (50, 99)},
        "shed_max_ms": percentile(outcome.shed, 100),
        "client_lag_p99_ms": percentile(outcome.lag, 99),
    }
    result["met"] = bool(
        outcome.accepted
        and result["accepted_p99_ms"] <= 2 * target_s * 1000
        and (result["shed_p99_ms"] or 0) <= SHED_MS
        and not (outcome.lost or outcome.hung or outcome.other)
    )
    return result


def soak(
    url: str, rps: float, seconds: float = 600, *, pids: Sequence[int], texts: Sequence[str] | None = None
) -> dict[str, Any]:
    """`rps` requests a second, the three tasks in turn, while memory of `pids` and all their descendants is sampled.

    `growth` is the median of the last tenth of the samples over the median of the tenth after the warm-up (the first
    fifth), minus one. Megabytes are PSS: a page that processes share counts once. A shed request counts as an error.
    """
    memory: list[float] = []
    ended = threading.Event()

    def sample() -> None:
        while not ended.wait(min(5.0, seconds / 40)):
            memory.append(sum(memory_mb(pid)["pss_mb"] for pid in pids))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        outcome = offer(url, rps, seconds, TASKS, texts=texts)
    finally:
        ended.set()
        sampler.join()
    tenth, warm = max(1, len(memory) // 10), len(memory) // 5
    first, last = statistics.median(memory[warm : warm + tenth]), statistics.median(memory[-tenth:])
    errors = outcome.sent - len(outcome.accepted)
    return outcome.counts() | {
        "errors": errors,
        **{f"accepted_p{q}_ms": percentile(outcome.accepted, q) for q in (50, 95, 99)},
        "client_lag_p99_ms": percentile(outcome.lag, 99),
        "memory_first_mb": round(first, 1),
        "memory_last_mb": round(last, 1),
        "growth": round(last / first - 1, 4) if first else None,
        "met": bool(outcome.accepted and not errors and first and last / first - 1 <= GROWTH),
    }


def offer(
    url: str,
    rps: float,
    seconds: float,
    tasks: Sequence[str] = ("intent",),
    connections: int = 512,
    texts: Sequence[str] | None = None,
) -> OpenLoopResult:
    """Send predict requests to `tasks` in turn, `rps` a second, and wait for every answer, at most 15 s each."""
    load = OpenLoop(url, requests(url, tasks, texts), connections)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        outcome = runner.run(load.run(rps, seconds))
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return outcome


# --- the requests ----------------------------------------------------------------------------------------------------


def requests(url: str, tasks: Sequence[str], texts: Sequence[str] | None = None) -> Iterator[bytes]:
    """HTTP requests without end, the tasks in turn: one text, or ten candidates to rank.

    Not seeded, because the texts of a second run would be cache hits.
    """
    bodies = {
        "intent": _varied(texts or load_texts()[0]),
        "sentiment": _varied(seed_texts("sentiment")),
        "recommendation": cycle(rankings(500, candidates=10, history=3)),
    }
    headers = f"host: {urlsplit(url).netloc}\r\ncontent-type: application/json\r\ncontent-length:"
    for task in cycle(tasks):
        body = next(bodies[task])
        yield f"POST /v2/models/{task}/predict HTTP/1.1\r\n{headers} {len(body)}\r\n\r\n".encode() + body


def _varied(texts: Sequence[str]) -> Iterator[bytes]:
    """Bodies with a text and a word of another: no pair twice before all were sent, and another order in each run."""
    texts = random.sample(texts, len(texts))
    words = list({word for text in texts for word in text.split()})
    random.shuffle(words)
    for turn in count():
        for number, text in enumerate(texts):
            yield json.dumps({"text": f"{text} {words[(number + turn) % len(words)]}"}).encode()


# --- the command -----------------------------------------------------------------------------------------------------

EXAMPLES = """examples:
  python loadtests/open_loop.py overload --url http://127.0.0.1:8000 --rps 700
  python loadtests/open_loop.py soak --url http://127.0.0.1:8000 --rps 200 --pid $(pgrep -of "flywheel up")
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tests = parser.add_subparsers(dest="test", required=True, metavar="overload | soak")
    for name, what, length in (("overload", "the server's capacity; three times as many are sent", 60),
                               ("soak", "the load; usually 70 %% of the server's capacity", 600)):  # fmt: skip
        test = tests.add_parser(name, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
        test.add_argument("--url", default="http://127.0.0.1:8000", help="the server (default %(default)s)")
        test.add_argument("--rps", type=float, required=True, help=f"requests a second: {what}")
        test.add_argument("--seconds", type=float, default=length, help="default %(default)s")
        if name == "overload":
            test.add_argument("--target", type=float, default=1.0, help="the server's limits.wait_s (default 1)")
        else:
            test.add_argument("--pid", type=int, required=True, help="`flywheel up`; its descendants count too")
    given = parser.parse_args()
    if given.rps <= 0 or given.seconds <= 0:
        parser.error("--rps and --seconds must be above 0")
    if given.test == "overload":
        result = overload(given.url, given.rps, given.seconds, given.target)
    else:
        result = soak(given.url, given.rps, given.seconds, pids=[given.pid])
    print(json.dumps(result, indent=2))
    if (result["client_lag_p99_ms"] or 0) > LATE_MS:
        print("This client was late itself: all times above include its delay.")
    print("met" if result["met"] else "MISSED")
    return 0 if result["met"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
