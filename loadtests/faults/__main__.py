"""Put faults into a server under load, and say what clients saw, how long until all was normal, and what was lost.

Each fault is put into a server of its own home (a copy of FLYWHEEL_HOME's models, which `make serve` trains) while 32
clients send predicts one after another and another one sends corrections. A bound that is missed is named, and the
command exits 1. What this machine does not allow to be measured is said, and is no miss.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from loadtests.faults.bounds import BOUNDS
from loadtests.faults.catalogue import GROUPS, NAMES, run_group
from loadtests.faults.page import PAGE, Run, bound_in_words, write_page
from loadtests.machine import describe, versions
from loadtests.peers import PeerError
from loadtests.servers import champion_bundle

EXAMPLES = """examples:
  python -m loadtests.faults                                    all, about half an hour
  python -m loadtests.faults --list                             their names and bounds
  python -m loadtests.faults --only haproxy-killed,replica-frozen
  python -m loadtests.faults --write                            all, into docs/faults.md
  FLYWHEEL_HOME=/srv/flywheel python -m loadtests.faults        with the models of that home
"""


def main(arguments: list[str] | None = None) -> int:
    given = parse(arguments)
    if given.list:
        for name in NAMES:
            print(f"{name:20} {bound_in_words(BOUNDS[name]) if name in BOUNDS else 'a bound for each check'}")
        return 0
    try:
        champion_bundle()
    except PeerError as error:
        sys.exit(str(error))
    began, run = time.monotonic(), Run(machine=describe(), versions=versions(()))
    with tempfile.TemporaryDirectory(prefix="fw-faults-", ignore_cleanup_errors=True) as folder:
        for group in GROUPS:
            if wanted := [name for name in group.names if name in given.only]:
                run_group(group, wanted, Path(folder) / group.name, run)
    run.minutes = (time.monotonic() - began) / 60
    print(f"\n{run.summary()}")
    if given.json:
        given.json.write_text(json.dumps(run.as_json(), indent=2) + "\n", encoding="utf-8")
    if given.write:
        write_page(run)
        print(f"written to {PAGE}")
    return 1 if run.missed() else 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.faults", description=__doc__, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--only", help="names of faults, with commas between them (default: all)")
    parser.add_argument("--list", action="store_true", help="list the faults with their bounds, and run none")
    parser.add_argument("--write", action="store_true", help="write docs/faults.md; needs all faults")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    given = parser.parse_args(arguments)
    given.only = given.only.split(",") if given.only else list(NAMES)
    if unknown := [name for name in given.only if name not in NAMES]:
        parser.error(f"there is no fault {', '.join(unknown)}; --list lists them")
    if given.write and set(given.only) != set(NAMES):
        parser.error("--write needs all faults; leave --only out")
    return given


if __name__ == "__main__":
    raise SystemExit(main())
