"""This machine's limit and the server, measured in one run: `make bench`, or `flywheel bench -- --help`.

The limit is what the exported intent model can do here in process: tokenization included, batches of texts of like
length, as many processes as cores with one thread each, and no HTTP. The server is a `flywheel up` of its own on a
free port, under load from `wrk` where it is installed, else from a bundled driver, which is slower itself and so
understates the server. Limit and server are measured in turns, several rounds, and reported as medians.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BANKING77 = ROOT.parent / "shared" / "data" / "banking77" / "test.csv"
PATH = "/v2/models/intent/predict"
BATCH = 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="rounds, each measuring the limit and the server")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement")
    parser.add_argument("--output", type=Path, default=ROOT / "var" / "bench.json")
    parser.add_argument("--check", action="store_true", help="exit 1 when a threshold is missed")
    arguments = parser.parse_args()
    texts, source = load_texts()
    driver = "wrk" if shutil.which("wrk") else "bundled driver (install wrk for an honest figure)"
    bundle = champion_bundle()
    print(f"texts: {len(texts)} from {source}; load: {driver}; {arguments.rounds} rounds of {arguments.seconds:g} s")
    rounds: list[dict[str, float]] = []
    with flywheel_server() as (url, process):
        wait_until_same(url, texts[0])
        memory = resident_mb(process.pid)
        for number in range(1, arguments.rounds + 1):
            result = {
                "limit_rps": in_process_limit(bundle, texts, arguments.seconds),
                "limit_batch1_ms": in_process_batch1_ms(bundle, texts, arguments.seconds / 2),
            }
            for connections in (1, 64):
                load = measure(url, texts, connections, arguments.seconds)
                result |= {f"c{connections}_{key}": value for key, value in load.items()}
            rounds.append(result)
            print(f"round {number}: limit {result['limit_rps']:.0f}/s, batch-1 {result['limit_batch1_ms']:.2f} ms; "
                  f"c=64 {result['c64_rps']:.0f}/s, c=1 p50 {result['c1_p50_ms']:.2f} ms", flush=True)  # fmt: skip
    report = summarize(rounds, memory, driver, source)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(report, indent=2))
    print_table(report)
    print(f"written to {arguments.output}")
    return 1 if arguments.check and not all(row["met"] for row in report["thresholds"]) else 0


def load_texts() -> tuple[list[str], str]:
    """Banking77's test split where it lies beside the clone, else the seed's holdout."""
    file, source = (BANKING77, "Banking77 test") if BANKING77.is_file() else (seed_file(), "the seed holdout")
    with file.open(encoding="utf-8", newline="") as opened:
        rows = [row for row in csv.DictReader(opened) if row.get("split", "holdout") == "holdout"]
    return [row["text"] for row in rows], source


def seed_file() -> Path:
    return ROOT / "models" / "seed" / "intent.csv"


def champion_bundle() -> Path:
    home = Path(os.environ.get("FLYWHEEL_HOME", ROOT / "var"))
    release = home / "releases" / "intent.json"
    if not release.is_file():
        sys.exit("There is no intent model yet. Run: make serve (it trains one), then make bench.")
    content = json.loads(release.read_text())
    return home / str(content["versions"][content["champion"]])


# --- the limit, in process -------------------------------------------------------------------------------------------


class Model:
    """The bundle run by onnxruntime and tokenizers alone: none of the code that is being judged."""

    def __init__(self, bundle: Path):
        import onnxruntime as ort
        from tokenizers import Tokenizer

        manifest = json.loads((bundle / "manifest.json").read_text())
        self._tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(manifest["max_length"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"])

    def run(self, texts: list[str]) -> Any:
        import numpy as np

        rows = sorted((encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts)), key=len)
        for at in range(0, len(rows), BATCH):
            part = rows[at : at + BATCH]
            ids = np.zeros((len(part), len(part[-1])), np.int64)
            mask = np.zeros_like(ids)
            for i, row in enumerate(part):
                ids[i, : len(row)] = row
                mask[i, : len(row)] = 1
            self._session.run(None, {"input_ids": ids, "attention_mask": mask})


def in_process_limit(bundle: Path, texts: list[str], seconds: float) -> float:
    """Texts a second of as many one-thread processes as there are cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with multiprocessing.get_context("spawn").Pool(cores) as pool:
        return sum(pool.starmap(_limit_worker, [(bundle, texts, seconds, time.time() + 5)] * cores))


def _limit_worker(bundle: Path, texts: list[str], seconds: float, start_at: float) -> float:
    model = Model(bundle)
    chunk = BATCH * 16  # enough texts to find 32 of like length, few enough to end on time
    model.run(texts[:chunk])
    time.sleep(max(0.0, start_at - time.time()))
    done, at, began = 0, 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        part = texts[at : at + chunk]
        model.run(part)
        done += len(part)
        at = at + chunk if at + chunk < len(texts) else 0
    return done / (time.perf_counter() - began)


def in_process_batch1_ms(bundle: Path, texts: list[str], seconds: float) -> float:
    """Median milliseconds of one text through tokenizer and session, one thread."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_batch1_worker, (bundle, texts, seconds))


def _batch1_worker(bundle: Path, texts: list[str], seconds: float) -> float:
    model = Model(bundle)
    times, began = [], time.perf_counter()
    for text in texts * 100:
        started = time.perf_counter()
        model.run([text])
        times.append(time.perf_counter() - started)
        if started - began > seconds:
            break
    return statistics.median(times) * 1000


# --- the server, over HTTP -------------------------------------------------------------------------------------------


@contextmanager
def flywheel_server() -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`flywheel up` on a free port, ended with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).parent / "flywheel", "up", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(240):
                if process.poll() is not None:
                    log.seek(0)
                    sys.exit(f"the server did not start:\n{log.read().decode()}")
                try:
                    urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5).close()
                    break
                except OSError:
                    time.sleep(0.5)
            yield url, process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def wait_until_same(url: str, text: str) -> None:
    """All replicas answer, and answer alike."""
    answers = {json.dumps(ask(url, text)["predictions"]) for _ in range(20)}
    if len(answers) != 1:
        sys.exit(f"replicas answer differently: {answers}")


def ask(url: str, text: str) -> Any:
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url + PATH, body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def measure(url: str, texts: list[str], connections: int, seconds: float) -> dict[str, float]:
    """rps, p50_ms, p95_ms, p99_ms and errors of one-text requests over `connections` connections."""
    measured = _wrk if shutil.which("wrk") else _bundled
    measured(url, texts, connections, min(2.0, seconds))  # connections, caches and clocks warm
    return measured(url, texts, connections, seconds)


_LUA = Path(__file__).with_name("predict.lua")


def _wrk(url: str, texts: list[str], connections: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        bodies = Path(folder) / "bodies"
        bodies.write_text("\n".join(json.dumps({"text": text}) for text in texts))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(_LUA), url]
        environment = {**os.environ, "BENCH_BODIES": str(bodies), "BENCH_PATH": PATH}
        output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    found = re.search(r"RESULT (\S+) (\S+) (\S+) (\S+) (\d+)", output)
    if found is None:
        sys.exit(f"wrk gave no result:\n{output}")
    names = ("rps", "p50_ms", "p95_ms", "p99_ms", "errors")
    return dict(zip(names, map(float, found.groups()), strict=True))


def _bundled(url: str, texts: list[str], connections: int, seconds: float) -> dict[str, float]:
    host, port = url.removeprefix("http://").split(":")
    bodies = [json.dumps({"text": text}).encode() for text in texts]
    times: list[float] = []
    errors = [0]
    stop = threading.Event()

    def client(number: int) -> None:
        connection = HTTPConnection(host, int(port), timeout=30)
        for at in range(number, 10**9, connections):
            if stop.is_set():
                return
            started = time.perf_counter()
            connection.request("POST", PATH, bodies[at % len(bodies)], {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            errors[0] += response.status != 200
            times.append(time.perf_counter() - started)

    with ThreadPoolExecutor(connections) as pool:
        for number in range(connections):
            pool.submit(client, number)
        time.sleep(seconds)
        stop.set()
    cuts = statistics.quantiles(times, n=100)
    return {
        "rps": len(times) / seconds, "p50_ms": cuts[49] * 1000, "p95_ms": cuts[94] * 1000, "p99_ms": cuts[98] * 1000,
        "errors": float(errors[0]),
    }  # fmt: skip


def resident_mb(pid: int) -> dict[str, float]:
    """Memory of the process and all its descendants: `pss` counts a shared page once, `rss` in every process."""
    tree, pages = [pid], {"rss": 0.0, "pss": 0.0}
    if not Path("/proc").is_dir():
        return pages
    parents: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(status.parent.name))
    for one in tree:
        tree += parents.get(one, [])
        try:
            content = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        for key in pages:
            pages[key] += int(re.search(rf"^{key}:\s+(\d+)", content, re.M | re.I).group(1)) / 1024  # type: ignore[union-attr]
    return pages


# --- the report ------------------------------------------------------------------------------------------------------


def summarize(rounds: list[dict[str, float]], memory: dict[str, float], driver: str, source: str) -> dict[str, Any]:
    """Medians over the rounds, ratios taken within each round, and the thresholds of the project."""
    median = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
    share = [r["c64_rps"] / r["limit_rps"] for r in rounds]
    slower = [r["c1_p50_ms"] / r["limit_batch1_ms"] for r in rounds]
    thresholds = [
        ("c=64, share of the in-process limit", statistics.median(share), ">=", 0.45),
        ("c=1 p50 over in-process batch-1 time", statistics.median(slower), "<=", 2.5),
        ("memory of the whole server, MB (PSS)", memory["pss"], "<=", 2500),
        ("memory of the whole server, MB (RSS)", memory["rss"], "<=", 2500),
        ("failed requests", sum(r["c1_errors"] + r["c64_errors"] for r in rounds), "<=", 0),
    ]
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "driver": driver,
        "texts": source,
        "limit_rps": median["limit_rps"],
        "limit_batch1_ms": median["limit_batch1_ms"],
        "flywheel": {
            f"c{c}": {key: median[f"c{c}_{key}"] for key in ("rps", "p50_ms", "p95_ms", "p99_ms", "errors")}
            | {"rss_mb": memory["rss"], "pss_mb": memory["pss"]}
            for c in (1, 64)
        },
        "spread": {"share_of_limit": [min(share), max(share)], "c1_over_batch1": [min(slower), max(slower)]},
        "rounds": rounds,
        "thresholds": [
            {"what": what, "value": value, "bound": f"{sign} {bound}",
             "met": value >= bound if sign == ">=" else value <= bound}
            for what, value, sign, bound in thresholds
        ],
    }  # fmt: skip


def print_table(report: dict[str, Any]) -> None:
    print(f"\n{report['machine']}; medians of {len(report['rounds'])} rounds")
    print(f"{'':24}{'rps':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'errors':>8}")
    print(f"{'in-process limit':24}{report['limit_rps']:8.0f}")
    print(f"{'in-process batch 1':24}{'':8}{report['limit_batch1_ms']:9.2f}")
    for name, row in report["flywheel"].items():
        print(f"{'flywheel ' + name.replace('c', 'c='):24}{row['rps']:8.0f}{row['p50_ms']:9.2f}{row['p95_ms']:9.2f}"
              f"{row['p99_ms']:9.2f}{row['errors']:8.0f}")  # fmt: skip
    print()
    for row in report["thresholds"]:
        print(f"{'met   ' if row['met'] else 'MISSED'} {row['what']}: {row['value']:.2f} (bound {row['bound']})")
    print()


if __name__ == "__main__":
    raise SystemExit(main())
