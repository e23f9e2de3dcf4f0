"""The gate on real bundles: sound ones, damaged ones, and the page that shows what changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from export.bundle import MODEL, Bundle, write_bundle
from export.linear import LinearReader
from models.data.dataset import load_dataset
from models.data.interaction_files import load_interactions
from models.evaluation.gate import GateResult, gate_classifier, gate_ranker
from models.evaluation.report import DATA, PAGE, write_report
from models.feedback.types import Sample
from models.tasks.thresholds import Thresholds
from tests.helpers.gate_page import Page

SECRET = "my iban is DE89370400440532013000"


def names(verdict: GateResult) -> set[str]:
    return {check.name for check in verdict.failed}


def rewritten(
    bundle: Path, out: Path, change: Callable[[np.ndarray], np.ndarray] | None = None, **fields: object
) -> Path:
    """A copy of `bundle` whose head's bias is changed, and fields of its manifest; whole and sound by its checksums.

    It has no linear reader, so that what is changed is its answer.
    """
    opened = Bundle.open(bundle)
    model = onnx.load(opened.model_path)
    biases = [t for t in model.graph.initializer if tuple(t.dims) == (len(opened.manifest.labels),)]
    bias = next(t for t in biases if t.name.endswith("bias"))
    if change:
        values = change(numpy_helper.to_array(bias))
        bias.CopyFrom(numpy_helper.from_array(values.astype(np.float32), bias.name))
    onnx.save(model, out.with_suffix(".onnx"))
    kept = opened.manifest.model_dump(exclude={"files", "format", "linear"}) | fields
    write_bundle(out, model=out.with_suffix(".onnx"), tokenizer=opened.tokenizer_path, fields=kept, assets={})
    return out


def samples(texts: list[tuple[str, str]]) -> list[Sample]:
    return [Sample(900 + i, "intent", t, label, "desk", datetime.now(UTC)) for i, (t, label) in enumerate(texts)]


def gate(champion: Path, candidate: Path, feedback: list[Sample] | None = None) -> GateResult:
    return gate_classifier(champion, candidate, load_dataset("intent").holdout[::3], feedback or [], ANY_SPEED)


ANY_SPEED = Thresholds(max_latency_ratio=1e6)  # a test must not depend on how busy the machine is


def test_a_bundle_against_itself_and_against_damaged_ones(bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    champion = bundle_of("intent")
    same = gate(champion, champion)
    assert same.accepted, same.sentence
    assert {"parity", "latency", "calibration"} <= {check.name for check in same.reasons}

    tilted = rewritten(champion, tmp_path / "tilted", lambda bias: bias + 4.0 * np.arange(len(bias)) % 9)
    assert {"holdout accuracy", "holdout trend"} <= names(gate(champion, tilted))
    constant = rewritten(champion, tmp_path / "constant", lambda bias: bias + 1e4 * (np.arange(len(bias)) == 3))
    assert "whatever the text" in gate(champion, constant).sentence
    nan = rewritten(champion, tmp_path / "nan", lambda bias: bias * np.nan)
    assert "not finite" in gate(champion, nan).sentence


def test_bundles_that_cannot_be_tried_are_refused(bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    champion = bundle_of("intent")
    cut = Path(shutil.copytree(champion, tmp_path / "cut"))
    (cut / MODEL).write_bytes((cut / MODEL).read_bytes()[:-1000])
    verdict = gate(champion, cut)
    assert names(verdict) == {"candidate"}
    assert "checksum" in verdict.sentence
    assert names(gate(cut, champion)) == {"champion"}
    assert names(gate(champion, tmp_path / "nowhere")) == {"candidate"}

    (tmp_path / "no.onnx").write_bytes(b"not a graph")
    opened = Bundle.open(champion)
    kept = opened.manifest.model_dump(exclude={"files", "format", "linear"})
    write_bundle(tmp_path / "no", model=tmp_path / "no.onnx", tokenizer=opened.tokenizer_path, fields=kept, assets={})
    assert "cannot be loaded" in gate(champion, tmp_path / "no").sentence

    fewer = rewritten(champion, tmp_path / "fewer", labels=opened.manifest.labels[:-1])
    assert "shape" in gate(champion, fewer).sentence
    unmeasured = rewritten(champion, tmp_path / "unmeasured", parity={})
    assert "parity" in gate(champion, unmeasured).sentence
    moved = rewritten(champion, tmp_path / "moved", parity={**opened.manifest.parity.model_dump(), "labels_moved": 0.2})
    assert "20.0%" in gate(champion, moved).sentence
    assert not gate_classifier(champion, champion, [], [], ANY_SPEED).accepted


def test_a_ranker_bundle(bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    champion = bundle_of("recommendation")
    interactions = load_interactions()
    verdict = gate_ranker(champion, champion, interactions, ANY_SPEED)
    assert verdict.accepted, verdict.sentence
    recorded = Bundle.open(champion).manifest.metrics
    assert f"{recorded['auc']:.4f}" in verdict.sentence  # scored as training scored it
    bare = tmp_path / "bare"
    opened = Bundle.open(champion)
    kept = opened.manifest.model_dump(exclude={"files", "format"})
    write_bundle(bare, model=opened.model_path, tokenizer=opened.tokenizer_path, fields=kept, assets={})
    assert "Train the task again" in gate_ranker(champion, bare, interactions, ANY_SPEED).sentence


def test_the_page_shows_what_changed_and_nothing_it_must_not(bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    champion = bundle_of("intent")
    tilted = rewritten(champion, tmp_path / "tilted", lambda bias: bias + 4.0 * np.arange(len(bias)) % 9)
    told = samples([(f"{text} {SECRET}", label) for text, label in load_dataset("intent").holdout[:60]])
    page = write_report(gate(champion, tilted, told), tmp_path / "page", title="intent 2", facts={"data": "seed"})
    assert page == tmp_path / "page" / PAGE
    shown = Page(page)
    assert "Refused" in shown.text
    assert "Confusion matrix of" in shown.text
    assert SECRET not in page.read_text(encoding="utf-8") + (page.parent / DATA).read_text(encoding="utf-8")
    data = json.loads((page.parent / DATA).read_text())
    assert data["accepted"] is False
    lost = data["sets"][0]["lost"]
    assert lost
    assert lost[0]["shown_as"] in {example.text for example in load_dataset("intent").holdout}
    assert data["sets"][1]["lost"] + data["sets"][1]["won"]
    for answer in data["sets"][1]["lost"] + data["sets"][1]["won"]:
        assert re.fullmatch(r"feedback 9\d\d", answer["shown_as"])


def of_readers(bundle: Path, out: Path, *, encoder: bool = True, turned: int = 0) -> Path:
    """A copy of a bundle of two readers, without its encoder, or whose linear reader mistakes every label."""
    opened = Bundle.open(bundle)
    assert opened.manifest.linear is not None, "the default models have two readers"
    arrays = LinearReader.of_bundle(opened, opened.manifest.linear).arrays
    turning = {name: np.roll(arrays[name], turned, axis=-1) for name in ("weights", "bias")}
    kept = opened.manifest.model_dump(exclude={"files", "format"})
    model = opened.model_path if encoder else None
    write_bundle(
        out, model=model, tokenizer=opened.tokenizer_path, fields=kept, assets={}, arrays={**arrays, **turning}
    )
    return out


def test_final_answers_are_judged_whichever_reader_gives_them(bundle_of: Callable[[str], Path], tmp_path: Path) -> None:
    both = bundle_of("intent")
    alone = of_readers(both, tmp_path / "alone", encoder=False)
    verdict = gate(alone, both)
    assert verdict.accepted, verdict.sentence
    sentences = {check.name: check.sentence for check in verdict.reasons}
    assert sentences["latency"] == "There are no two encoders whose latency to compare."
    assert verdict.champion["holdout"].parts is None
    assert "no encoder" in gate(both, alone).sentence
    wrong = gate(both, of_readers(both, tmp_path / "wrong", turned=1))
    assert {"early answers", "early accuracy", "holdout accuracy"} <= names(wrong)
    assert next(check for check in wrong.reasons if check.name == "parity").passed, "its encoder is right"
