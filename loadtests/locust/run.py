"""Load tests: a day of each kind of user, with thresholds; docs/load.md describes the scenarios.

Each scenario runs on a server of its own, with a copy of the home's models, or against the server at --host. Prints the
figures beside their bounds, writes Locust's HTML report and CSV files, and exits 1 with a sentence for each threshold
that is missed. Load generator and server share the machine's cores, so the figures are no benchmark: loadtests/bench.py
is one.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests.locust.own_server import own_server
from loadtests.locust.scenarios import SCENARIOS, Scenario
from loadtests.servers import home, series_of
from loadtests.texts import ROOT

EXAMPLES = """examples:
  make load                                                         all scenarios, 10 to 30 minutes
  make load ARGS="--scenario support_desk --users 50 --minutes 2"
  make load ARGS="--scenario market_open,product_page"
  make load ARGS="--scenario everything --retrain intent"
  make load ARGS="--host https://staging.example --scenario product_page --token ..."

A server at --host logs what it is asked, counts the documents and takes the feedback: use one for tests. Its models
may learn from the feedback only with --consent. `everything` has a model retrained and moves its versions: with --host
it runs only if it is named.
"""
TOKEN = "FLYWHEEL_SERVER__OPERATOR_TOKEN"
_GRACE_S = 120  # of a run beyond its length, to start and to end


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers are ended too
    if importlib.util.find_spec("locust") is None:
        sys.exit("Locust is not installed. Run: make load, or pip install 'flywheel-serve[load]'.")
    options.output.mkdir(parents=True, exist_ok=True)
    codes = {scenario.name: measure(scenario, options) for scenario in options.scenarios}
    print("\n" + "\n".join(f"{'met' if code == 0 else 'MISSED':8}{name}" for name, code in codes.items()))
    print(f"reports: {options.output}/*.html")
    return 1 if any(codes.values()) else 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    names = ", ".join(SCENARIOS)
    add("--scenario", default="all", help=f"all, or some of {names}, with commas between (default %(default)s)")
    add("--users", type=int, help="users at once (default by scenario: 16 to 48)")
    add("--minutes", type=float, help="length of a run (default 2); of everything, which ends by itself, at most (20)")
    add("--host", metavar="URL", help="a running server, instead of one of its own for each scenario")
    add("--token", default=os.environ.get(TOKEN, ""), help=f"the operator's token; default: {TOKEN}")
    add("--consent", action="store_true", help="let models of the server at --host learn from the feedback")
    add("--retrain", default="recommendation", help="the task that everything retrains (default %(default)s)")
    add("--home", type=Path, default=home(), help="the trained home whose models are copied (default %(default)s)")
    add("--output", type=Path, default=ROOT / "var" / "load", help="folder of the reports (default %(default)s)")
    options = parser.parse_args(arguments)
    chosen = options.scenario.split(",")
    if chosen == ["all"]:
        chosen = [name for name in SCENARIOS if options.host is None or name != "everything"]
    if unknown := [name for name in chosen if name not in SCENARIOS]:
        parser.error(f"there is no scenario {unknown[0]!r}; there are {names}")
    if (options.users is not None and options.users < 1) or (options.minutes is not None and options.minutes <= 0):
        parser.error("--users and --minutes must be above 0")
    if options.host is not None and not re.fullmatch(r"https?://[^/\s]+/?", options.host):
        parser.error(f"--host: {options.host!r} is not an address such as http://127.0.0.1:8000")
    options.scenarios = [SCENARIOS[name] for name in chosen]
    return options


def measure(scenario: Scenario, options: argparse.Namespace) -> int:
    """Run a scenario and print its verdict; the exit code of its Locust."""
    with serving(scenario, options) as url:
        print(f"\n{scenario.name} against {url}: {scenario.title}", flush=True)
        before = cached_texts(url)
        code = run_locust(scenario, url, options)
        print_cache(before, cached_texts(url))
    return code


@contextmanager
def serving(scenario: Scenario, options: argparse.Namespace) -> Iterator[str]:
    """The address of the server under load."""
    if options.host is not None:
        yield options.host.rstrip("/")
        return
    with (
        tempfile.TemporaryDirectory() as folder,
        own_server(options.home, Path(folder), scenario.name, options.token) as url,
    ):
        yield url


def run_locust(scenario: Scenario, url: str, options: argparse.Namespace) -> int:
    """Run Locust in a process of its own, since it patches the standard library; its exit code, 2 when it hung."""
    users, seconds = options.users or scenario.users, 60 * (options.minutes or scenario.minutes)
    report = options.output / scenario.name
    command = [
        sys.executable, "-m", "locust", "--locustfile", str(scenario.locustfile), "--host", url,
        "--headless", "--only-summary", "--loglevel", "WARNING",
        "--users", str(users), "--spawn-rate", str(max(1.0, users / 5)), "--run-time", f"{seconds:.0f}s",
        "--stop-timeout", "15s", "--html", f"{report}.html", "--csv", str(report), "--retrain", options.retrain,
    ]  # fmt: skip
    if options.consent or options.host is None:
        command.append("--consent")
    environment = {**os.environ, TOKEN: options.token, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment)
    try:
        return process.wait(seconds + _GRACE_S)
    except subprocess.TimeoutExpired:
        print(f"MISSED {scenario.name}: Locust did not end {_GRACE_S} s after its time", flush=True)
        return 2
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def cached_texts(url: str) -> Counter[tuple[str, str]]:
    """How many texts each task looked up in its answer cache, by (task, result), such as hit or miss."""
    counts: Counter[tuple[str, str]] = Counter()
    for labels, value in series_of(url, "flywheel_cache_texts_total"):
        counts[labels["task"], labels["result"]] += int(value)
    return counts


def print_cache(before: Counter[tuple[str, str]], after: Counter[tuple[str, str]]) -> None:
    """Say how much of the load the answer cache took: were it most of it, nothing would have been measured."""
    looked_up = after - before
    for task in sorted({task for task, _ in looked_up}):
        results = {result: count for (of, result), count in looked_up.items() if of == task}
        shares = ", ".join(f"{result} {count / sum(results.values()):.0%}" for result, count in sorted(results.items()))
        print(f"answer cache of {task}: {shares} of {sum(results.values()):,} look-ups")


if __name__ == "__main__":
    raise SystemExit(main())
