"""Measures a scrape of GET /metrics: its time at rest and under load, its size, and its cost in processor time.

    python loadtests/scrape.py             about a minute and a half; needs trained models
    python loadtests/scrape.py --check     exit 1 when it takes longer than 50 ms at rest, or over 1 % of a core at 15 s

The cost is the processor time of all processes of the server while it is scraped twice a second, less that at rest.
Linux only.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from loadtests import drivers
from loadtests.arrivals import percentile
from loadtests.costs import thread_seconds
from loadtests.peers import PeerError
from loadtests.servers import FLYWHEEL, champion_bundle, running
from loadtests.texts import corpus_of
from loadtests.workloads import Scenarios

CONNECTIONS = 64
WARM_S, SETTLE_S, EDGE_S = 5.0, 5.0, 1.0
PAUSE_S = 0.1  # between scrapes whose time is measured
COST_EVERY_S, COST_S, COST_ROUNDS = 0.5, 10.0, 2
INTERVAL_S = 15.0  # of a scraper as it is usually configured
MAX_MS, MAX_CORE = 50.0, 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scrapes", type=int, default=50, help="at rest and under load each; default %(default)s")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bound is missed")
    options = parser.parse_args()
    try:
        bundle = champion_bundle()
        with running(FLYWHEEL, bundle) as (url, pid):
            (scenario,) = Scenarios(corpus_of(bundle).texts, bundle).of(FLYWHEEL, ["c64"])
            drivers.load(url, scenario.calls, CONNECTIONS, WARM_S)
            time.sleep(SETTLE_S)
            at_rest = [scrape_ms(url, PAUSE_S) for _ in range(options.scrapes)]
            cost_s = statistics.median(seconds_a_scrape(url, pid) for _ in range(COST_ROUNDS))
            seconds = options.scrapes * (2 * PAUSE_S) + 2 * EDGE_S
            loading = threading.Thread(
                target=drivers.load, args=(url, scenario.calls, CONNECTIONS, seconds), daemon=True
            )
            loading.start()
            time.sleep(EDGE_S)
            loaded = [scrape_ms(url, PAUSE_S) for _ in range(options.scrapes)]
            loading.join()
            text = body(url)
    except (PeerError, drivers.LoadError, OSError) as error:
        sys.exit(str(error))
    series = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"{series} series, {len(text) / 1024:.0f} KB")
    show("at rest", at_rest)
    show(f"under {CONNECTIONS} connections", loaded)
    print(f"{1000 * cost_s:.0f} ms of processor time a scrape: {cost_s / INTERVAL_S:.2%} of a core at {INTERVAL_S:g} s")
    missed = (percentile(at_rest, 95) or 0.0) > MAX_MS or cost_s / INTERVAL_S > MAX_CORE
    if options.check and missed:
        print(f"MISSED: at most {MAX_MS:g} ms (95th percentile, at rest) and {MAX_CORE:.0%} of a core")
    return int(options.check and missed)


def body(url: str) -> bytes:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        content: bytes = response.read()
        return content


def scrape_ms(url: str, pause_s: float) -> float:
    time.sleep(pause_s)
    began = time.perf_counter()
    body(url)
    return 1000 * (time.perf_counter() - began)


def seconds_a_scrape(url: str, pid: int) -> float:
    """Processor seconds of the server for one scrape."""
    idle = spent(pid)
    time.sleep(COST_S)
    before = spent(pid)
    idle = before - idle
    scrapes, until = 0, time.monotonic() + COST_S
    while time.monotonic() < until:
        body(url)
        scrapes += 1
        time.sleep(max(0.0, COST_EVERY_S - (time.monotonic() - until + COST_S) % COST_EVERY_S))
    return max(0.0, spent(pid) - before - idle) / scrapes


def spent(pid: int) -> float:
    """Processor seconds of the process and its descendants so far."""
    return sum(thread_seconds(pid).values())


def show(title: str, times: Sequence[float]) -> None:
    middle, high = statistics.median(times), percentile(times, 95)
    print(f"{title}: median {middle:.1f} ms, 95th percentile {high:.1f}, at most {max(times):.1f}")


if __name__ == "__main__":
    raise SystemExit(main())
