"""A poisoned batch: one source sends corrections, 30 % with a wrong label. None may be learned from.

    python loadtests/scenarios/poisoned.py --home /tmp/banking    with the champion of new_intents.py; some minutes

Corrections for the ten new intents, all from one source, 30 % flipped among themselves. Prints each figure beside its
bound and exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))  # it is also run as a script

from loadtests.scenarios.new_intents import (
    MODEL,
    NEW,
    OPERATIONS,
    champion,
    fresh_home,
    log,
    read_texts,
    train_champion,
)
from loadtests.scenarios.world import Body, Row, eventually, serving_intent, show
from loadtests.texts import BANKING77

FLIPPED = 0.3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True, help="the --home of new_intents.py, with its champion")
    options = parser.parse_args()
    if not BANKING77.is_dir():
        sys.exit(f"this needs Banking77 in {BANKING77}")
    train = read_texts(BANKING77 / "train.csv")
    new = sorted(random.Random(7).sample(sorted({text.label for text in train}), NEW))
    home = options.home.resolve()
    train_champion(home, [text for text in train if text.label not in new])
    draw = random.Random(2)
    items = [
        {
            "text": text.text,
            "label": draw.choice([other for other in new if other != text.label])
            if draw.random() < FLIPPED
            else text.label,
            "source": "a-page",
            "user": f"customer {number % 300}",
            "consent": True,
        }
        for number, text in enumerate(text for text in train if text.label in new)
    ]
    draw.shuffle(items)
    with serving_intent(
        fresh_home(home), new_labels=True, FLYWHEEL_LEARNING__MIN_NEW_SAMPLES=str(len(items) - 200)
    ) as server:
        client = server.client()
        for start in range(0, len(items), 500):
            client.must(f"{MODEL}/feedback", {"feedback": items[start : start + 500]})
        log(f"{len(items)} corrections sent; waiting for the end of a retraining")

        def ended() -> bool:
            return bool(outcomes(client.must(f"{OPERATIONS}/audit")["audit"]))

        took = eventually(ended, 15 * 60, every=1.0)
        time.sleep(10)  # enough for a release, which there must not be
        states = client.must(f"{MODEL}/feedback")["states"]
        entries = client.must(f"{OPERATIONS}/audit")["audit"]
        for entry in reversed(entries):
            log(f"  {entry['at'][11:19]}  {entry['action']:16} {entry['reason'][:200]}")
        log(str(states))
        versions = len(client.must(MODEL)["versions"])
        return show([
            Row("minutes until a run ended", took / 60, "<=", 15),
            Row("runs that did not end in a refusal", len(not_refused(entries)), "<=", 0),
            Row("the champion is another version", champion(client) != "1", "<=", 0),
            Row("versions that answer", versions, "<=", 1),
            Row("corrections quarantined", states["quarantined"], ">=", 1),
            Row("corrections learned from", states["used"], "<=", 0),
        ])  # fmt: skip


def outcomes(entries: Sequence[Body]) -> list[str]:
    """How runs ended, newest first: the word after `retrain` in the audit log's entries."""
    actions = [entry["action"].removeprefix("retrain ") for entry in entries if entry["action"].startswith("retrain ")]
    return [action for action in actions if action not in ("started", "asked")]


def not_refused(entries: Sequence[Body]) -> list[str]:
    """The outcomes that are no refusal. A run that crashed changes nothing either, but shows no protection."""
    return [outcome for outcome in outcomes(entries) if outcome not in ("refused", "too_few")]


if __name__ == "__main__":
    raise SystemExit(main())
