"""Write the dashboards as JSON: `.venv/bin/python deploy/grafana/build.py`, after a change of overview.py and its like.

Grafana reads the JSON (provisioning/dashboards/flywheel.yml); who only installs it needs no Python. A test fails when
the JSON is not what this writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import opinion
import overview
import release
import task
import wheel
from grafana_foundation_sdk.cog.encoder import JSONEncoder

_FOLDER = Path(__file__).parent / "dashboards"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=_FOLDER, help="folder of the JSON files")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    for page in (overview, task, release, wheel, opinion):
        made = page.build().build()
        for number, panel in enumerate(made.panels or [], 1):
            panel.id_val = number
        text = JSONEncoder(sort_keys=True, indent=1).encode(made)
        (folder / f"{page.__name__}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
