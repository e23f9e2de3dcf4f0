"""Measures what the linear reader costs beside the encoder, in one process:

    python -m export.costs var/bundles/intent/1             with the known questions of the bundle
    python -m export.costs var/bundles/intent/1 texts.txt   with a text a line

Compare the shares: the machine's speed differs from run to run. The readers take turns, and the best of several rounds
counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from export.bundle import Bundle
from export.model import Model
from export.tokenizer import Ids

_TEXTS, _ROUNDS = 256, 9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("texts", type=Path, nargs="?")
    options = parser.parse_args()
    model = Model.open(Bundle.open(options.bundle), providers="cpu")
    if model.readers is None or (encoder := model.session) is None:
        parser.error(f"{options.bundle} has one reader")
    texts = options.texts.read_text(encoding="utf-8").splitlines() if options.texts else _known_questions(model)
    if len(texts) < _TEXTS:
        parser.error(f"{len(texts)} texts are too few; {_TEXTS} are needed")
    model.warm_up()
    step = len(texts) // _TEXTS  # those of one label may stand together
    rows = [encoded.ids for encoded in model.encoder.encode(texts[::step][:_TEXTS])]
    early = sum(model.early(ids) is not None for ids in rows)
    print(
        f"{len(rows)} texts of {sum(map(len, rows)) / len(rows):.1f} tokens, {early / len(rows):.0%} answered early\n"
    )
    print(f"{'microseconds a text':>20}{'linear reader':>16}{'encoder':>12}{'share':>10}")
    for size in (1, 64):
        linear, deep = best_us([lambda batch: [model.early(ids) for ids in batch], encoder.run], rows, size)
        print(f"{f'{size} in a batch':>20}{linear:16.1f}{deep:12.1f}{linear / deep:10.2%}")


def best_us(runs: Sequence[Callable[[Sequence[Ids]], object]], rows: Sequence[Ids], size: int) -> list[float]:
    """The best time of each of `runs` on all rows, `size` at a time, in microseconds a row."""
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(_ROUNDS):
        for run, own in zip(runs, times, strict=True):
            began = time.perf_counter()
            for at in range(0, len(rows), size):
                run(rows[at : at + size])
            own.append((time.perf_counter() - began) / len(rows) * 1e6)
    return [min(own) for own in times]


def _known_questions(model: Model) -> list[str]:
    found: list[str] = (model.bundle.asset("known_questions") or {"texts": []})["texts"]
    return found


if __name__ == "__main__":
    main()
