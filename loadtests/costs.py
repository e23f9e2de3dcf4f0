"""Measures the processor time of a request by kind of process, under load and at rest.

    python loadtests/costs.py                           half a minute at 64 connections; needs trained models
    python loadtests/costs.py --cache --connections 1   with the answer cache, over one connection
    python loadtests/costs.py --texts 32 --connections 4

Time is what the kernel counts for each thread, so waiting for a core is not included. The model runs on the event loop
while little work waits, and else in its own thread: the two are one line. Linux only.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from loadtests import drivers
from loadtests.peers import PeerError
from loadtests.servers import FLYWHEEL, FLYWHEEL_CACHE, champion_bundle, descendants, running
from loadtests.texts import corpus_of
from loadtests.workloads import MANY, Scenarios

REST_S, WARM_S, EDGE_S = 5.0, 3.0, 1.0
Threads = dict[tuple[int, int], float]  # (process, thread) -> seconds on a core


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64, help="default %(default)s")
    parser.add_argument(
        "--texts", type=int, choices=(1, MANY), default=1, help="texts in a request; default %(default)s"
    )
    parser.add_argument("--seconds", type=float, default=10, help="default %(default)s")
    parser.add_argument("--cache", action="store_true", help="with the answer cache as configured; default: without")
    options = parser.parse_args()
    try:
        bundle = champion_bundle()
        with running(FLYWHEEL_CACHE if options.cache else FLYWHEEL, bundle) as (url, pid):
            scenarios = Scenarios(corpus_of(bundle).texts, bundle)
            (scenario,) = scenarios.of(FLYWHEEL, ["c64" if options.texts == 1 else "batch32"])
            drivers.load(url, scenario.calls, options.connections, WARM_S)
            time.sleep(EDGE_S)
            rest = cores_used(pid, REST_S)
            result: dict[str, float] = {}

            def load() -> None:
                result.update(drivers.load(url, scenario.calls, options.connections, options.seconds + 2 * EDGE_S))

            loading = threading.Thread(target=load)
            loading.start()
            time.sleep(EDGE_S)
            busy = cores_used(pid, options.seconds)
            loading.join()
    except (PeerError, drivers.LoadError) as error:
        sys.exit(str(error))
    print(f"{result['rps']:.0f} requests a second over {options.connections} connections\n")
    print(f"{'':38}{'us a request':>14}{'% of a core':>14}{'% at rest':>12}")
    for kind, share in sorted(busy.items(), key=lambda item: -item[1]):
        print(f"{kind:38}{share / result['rps'] * 1e6:14.0f}{100 * share:14.1f}{100 * rest.get(kind, 0):12.1f}")
    print(f"{'all':38}{sum(busy.values()) / result['rps'] * 1e6:14.0f}", end="")
    print(f"{100 * sum(busy.values()):14.1f}{100 * sum(rest.values()):12.1f}")
    return 0


def cores_used(pid: int, seconds: float) -> dict[str, float]:
    """The share of a core (1.0: one core) that each kind of process under `pid` uses over the next `seconds`."""
    began, before = time.perf_counter(), thread_seconds(pid)
    time.sleep(seconds)
    ended, after = time.perf_counter(), thread_seconds(pid)  # reading is slow while all cores are busy
    shares = {key: (spent_s - before.get(key, 0.0)) / (ended - began) for key, spent_s in after.items()}
    replicas: dict[int, list[float]] = defaultdict(list)
    kinds: dict[str, float] = defaultdict(float)
    for (process, thread), share in shares.items():
        name = command(process)
        if "ServeReplica:intent" not in name:
            kinds[kind_of(name)] += share
        elif is_model_thread(process, thread):
            kinds["replica: the model and the event loop"] += share
        else:
            replicas[process].append(share)
    for own in replicas.values():
        loop, *others = sorted(own, reverse=True)
        kinds["replica: the model and the event loop"] += loop
        kinds["replica: other threads (the log's)"] += sum(others)
    return kinds


def is_model_thread(process: int, thread: int) -> bool:
    """Whether the thread is the model's, the only one in its process with a lower priority."""
    with suppress(OSError):
        return os.getpriority(os.PRIO_PROCESS, thread) > os.getpriority(os.PRIO_PROCESS, process)
    return False


def kind_of(name: str) -> str:
    if "haproxy" in name and "ray::" not in name:
        return "HAProxy"
    if "ray::ServeReplica" in name:
        return "replicas of other tasks, control"
    return "Ray and Serve's own processes"


def command(process: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    return ""


def thread_seconds(pid: int) -> Threads:
    """The processor seconds of each thread of the process `pid` and its descendants."""
    found: Threads = {}
    for process in descendants(pid):
        for folder in Path(f"/proc/{process}/task").glob("*"):
            with suppress(OSError):
                found[process, int(folder.name)] = int((folder / "schedstat").read_text().split()[0]) / 1e9
    return found


if __name__ == "__main__":
    raise SystemExit(main())
