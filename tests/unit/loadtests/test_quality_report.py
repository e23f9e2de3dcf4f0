"""The document on quality: its tables, its plot, what is left out and why, which trainings are taken again."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from loadtests.quality import calibration_plot, report, sections, trained
from loadtests.quality.figures import OUT_OF_SCOPE, Answers, Figure
from loadtests.quality.page import Command, Run, anchor, missed_bounds, other_commands, page
from loadtests.quality.report import PAGE, parse, write
from loadtests.quality.sections import SOURCES, Section, describe, left_out, scope_training, why_not
from loadtests.quality.trained import Training, code_digest, time_left, write_rows
from models.data.dataset import load_dataset

RUN = Run('make quality ARGS="--seeds 7"', "abc1234", "a machine", "Flywheel 1, 2026-11-30", 31.4, 24.2, 3, 0)


def figure(name: str, value: float, *others: float) -> Figure:
    return Figure(name, value, value - 0.01, value + 0.01, 1234, [value, *others])


def answers(texts: int = 60) -> Answers:
    """Two of three right, every fifth out of scope and handed to a person."""
    truth = [OUT_OF_SCOPE if i % 5 == 0 else "a" for i in range(texts)]
    rows: list[dict[str, Any]] = [
        {"label": "a" if i % 3 else "b", "score": 0.4 + (i % 50) / 100, "handoff": i % 5 == 0} for i in range(texts)
    ]
    return Answers.of(truth, rows)


def section(**fields: Any) -> Section:
    run = answers()
    known: dict[str, Any] = {
        "title": "Banking77", "about": "Asked.", "commands": ["flywheel train", "make quality"], "seeds": [7],
        "figures": [figure("accuracy", 0.943), figure("calibration_error", 0.031), figure("macro_f1", 0.9431)],
        "bounds": {"accuracy": 0.942, "calibration_error": 0.03}, "runs": [run], "served": ["intent, int8"],
    }  # fmt: skip
    return Section(**{**known, **fields})


def test_the_document_has_a_row_for_each_figure_with_its_interval_texts_and_bound() -> None:
    text = page(RUN, [section()], [], None)
    assert "| accuracy | 94.3 % | 93.3 % to 95.3 % | 1,234 | at least 94.2 %, met |" in text
    assert "| calibration error (15 bins) | 3.1 % | 2.1 % to 4.1 % | 1,234 | at most 3.0 %, **missed** |" in text
    assert "| macro-F1 | 0.943 | 0.933 to 0.953 | 1,234 |  |" in text
    assert "Command: `flywheel train`, then `make quality`. Served: intent, int8." in text


def test_the_document_says_on_what_it_was_measured() -> None:
    head = page(RUN, [section()], [], None).split("\n\n")[1]
    for said in (
        '`make quality ARGS="--seeds 7"`',
        "commit abc1234",
        "a machine",
        "2026-11-30",
        "31 minutes",
        "24 min",
    ):
        assert said in head
    again = Run(RUN.command, RUN.commit, RUN.machine, RUN.versions, 0.5, 0, 0, 3)
    assert "3 models were trained by earlier runs with the same corpora" in page(again, [section()], [], None)


def test_several_seeds_have_a_column_each() -> None:
    text = page(RUN, [section(seeds=[7, 8], figures=[figure("accuracy", 0.94, 0.95)])], [], None)
    assert "|  | figure | 95 % interval | texts | seed 7 | seed 8 | bound |" in text
    assert "| 94.0 % | 95.0 % |" in text


def test_the_summary_links_to_each_section_and_names_missed_bounds() -> None:
    title = "Out of scope: Banking77 with ten intents left out"
    text = page(RUN, [section(), section(title=title, bounds={}, figures=[figure("balanced", 0.9)])], [], None)
    assert "| [Banking77](#banking77) | 94.3 % | 0.943 | 3.1 % |  | missed: calibration error (15 bins) |" in text
    assert f"[{title}](#{anchor(title)})" in text
    assert anchor(title) == "out-of-scope-banking77-with-ten-intents-left-out"


def test_missed_bounds_are_sentences() -> None:
    assert missed_bounds([section()]) == ["Banking77: calibration error (15 bins) is 3.1 %, the bound at most 3.0 %"]
    assert not missed_bounds([section(bounds={"accuracy": 0.9})])


def test_an_absent_set_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sections, "DATA", tmp_path)
    console = Console(file=io.StringIO())
    for name in ("banking77", "financial_phrasebank", "out_of_scope"):
        source = SOURCES[name]
        assert source.trainings([7]) == []
        (found,) = source.measure([7], console)
        text = page(RUN, [found], [], None)
        assert "Not measured: ../shared/data/" in text
        assert not missed_bounds([found])
    write(RUN, [found], tmp_path / "quality.md", console)
    assert not (tmp_path / "quality.svg").exists()


def test_a_default_model_of_another_seed_is_not_asked_its_holdout(tmp_path: Path) -> None:
    assert "there is no intent model yet" in str(why_not(tmp_path, "intent"))
    bundle = tmp_path / "bundles" / "intent" / "1"
    for folder in (bundle, tmp_path / "releases"):
        folder.mkdir(parents=True)
    release = {"champion": "1", "versions": {"1": "bundles/intent/1"}}
    (tmp_path / "releases" / "intent.json").write_text(json.dumps(release))
    (bundle / "manifest.json").write_text(json.dumps({"data": {"fingerprint": "of another"}}))
    assert "was not trained on this seed corpus" in str(why_not(tmp_path, "intent"))
    fingerprint = load_dataset("intent").fingerprint
    (bundle / "manifest.json").write_text(json.dumps({"data": {"fingerprint": fingerprint}}))
    assert why_not(tmp_path, "intent") is None
    (bundle / "manifest.json").write_text(json.dumps({"has_encoder": False}))
    assert "first version" in str(why_not(tmp_path, "intent"))


def test_ten_intents_are_drawn_by_the_seed_and_not_taught() -> None:
    rows = [(f"text {i} of {label}", label) for label in map(str, range(77)) for i in range(3)]
    unknown = left_out([label for _, label in rows], 7)
    assert len(set(unknown)) == 10
    assert unknown == left_out([label for _, label in reversed(rows)], 7) != left_out([label for _, label in rows], 8)
    training = scope_training(rows, rows, 7)
    assert len({label for _, label in training.train}) == 67
    assert not {label for _, label in (*training.train, *training.holdout)} & set(unknown)


def test_answers_whose_label_the_model_does_not_know_do_not_count_for_calibration() -> None:
    run = answers()
    taught = section(runs=[run], outside=[run.truth == OUT_OF_SCOPE])
    unknown = section(runs=[run], outside=[run.truth == "a"])
    assert [len(one) for one in taught.answerable] == [60]
    assert [len(one) for one in unknown.answerable] == [12]


def test_what_was_served_is_said() -> None:
    manifest = {"task": "intent", "precision": "int8", "labels": ["a", "b"], "base_model": "a base",
                "created": "2026-11-30T02:13:57+00:00", "linear": {"early": {"above": 0.9}}}  # fmt: skip
    assert describe(manifest) == "intent, int8, 2 labels, two readers, early answers, base a base, exported 2026-11-30"
    assert "no early answers" in describe({**manifest, "linear": {"early": None}})
    assert "the encoder alone" in describe({**manifest, "linear": None})


def test_a_training_is_done_if_corpus_seed_and_code_are_the_same(tmp_path: Path) -> None:
    def training(**fields: Any) -> Training:
        known: dict[str, Any] = {"folder": tmp_path, "task": "intent", "train": [("a", "b")], "holdout": [("c", "b")]}
        return Training(**{**known, "seed": 7, "minutes": 1.0, **fields})

    assert not training().is_done
    (tmp_path / "trained.json").write_text(json.dumps({"stamp": training().stamp}))
    assert training().is_done
    assert training(folder=tmp_path, minutes=2.0).is_done
    assert not training(seed=8).is_done
    assert not training(train=[("a", "b"), ("c", "b")], holdout=[]).is_done
    assert not training(task="sentiment").is_done


def test_the_code_digest_changes_with_the_code(tmp_path: Path) -> None:
    for name in trained._CODE:
        path = tmp_path / name
        if path.suffix:
            path.write_text("1")
        else:
            path.mkdir()
            (path / "a.py").write_text("1")
            (path / "notes.txt").write_text("1")
    before = code_digest(tmp_path)
    (tmp_path / "models" / "notes.txt").write_text("2")
    assert code_digest(tmp_path) == before
    (tmp_path / "models" / "a.py").write_text("2")
    assert code_digest(tmp_path) != before


def test_the_time_left_follows_the_pace_of_this_machine() -> None:
    assert time_left([11, 10, 3], 0, 0) == 24
    assert time_left([10, 3], spent=22, expected=11) == 26


def test_a_corpus_names_its_holdout(tmp_path: Path) -> None:
    write_rows(tmp_path / "corpus.csv", [("a, b", "x")], [("c", "y")])
    assert (tmp_path / "corpus.csv").read_text() == 'text,label,split\n"a, b",x,train\nc,y,holdout\n'


def test_the_plot_has_every_section(tmp_path: Path) -> None:
    run = answers()
    scoped = section(title="Out of scope: ten", runs=[run], outside=[run.truth == OUT_OF_SCOPE])
    found = [section(), scoped, section(title="Absent", runs=(), absent="is missing")]
    console = Console(file=io.StringIO())
    write(RUN, found, tmp_path / "quality.md", console)
    plot = (tmp_path / "quality.svg").read_text()
    assert plot.count('<g id="axes_') >= 4  # two of calibration, coverage, out of scope
    assert (
        "![calibration, accuracy by coverage, and out of scope](quality.svg)" in (tmp_path / "quality.md").read_text()
    )
    calibration_plot.draw(found, tmp_path / "again.svg")
    assert (tmp_path / "again.svg").read_text() == plot


def test_other_commands_are_listed_with_what_they_say_of_themselves() -> None:
    found = other_commands(Path(report.__file__).parent, without=Path(report.__file__))
    listed = {one.file: one.what for one in found}
    assert "behaviour.py" in listed
    assert not {"report.py", "page.py", "__init__.py"} & set(listed)
    assert listed["surges.py"].startswith("How often a quiet topic has a false alarm")
    assert "| `python loadtests/quality/a.py` | What. |" in page(RUN, [], [Command("a.py", "What.")], None)


def test_a_part_of_the_sets_does_not_overwrite_the_document() -> None:
    assert parse([]).output == PAGE
    assert parse(["--quick"]).output == PAGE
    assert parse(["--sets", "seeds"]).output != PAGE
    assert parse(["--sets", "seeds", "--output", "a.md"]).output == Path("a.md")


def test_options_are_checked_and_repeated_as_a_command() -> None:
    assert parse(["--quick"]).seeds == [7]
    assert parse(["--quick"]).command == 'make quality ARGS="--seeds 7"'
    assert parse(["--sets", "seeds"]).command == 'make quality ARGS="--sets seeds"'
    assert parse(["--sets", "banking77,seeds", "--seeds", "1,2"]).command == (
        'make quality ARGS="--sets banking77,seeds --seeds 1,2"'
    )
    for wrong in (["--sets", "clinc"], ["--seeds", "a"], ["--seeds", ""]):
        with pytest.raises(SystemExit):
            parse(wrong)


def test_answers_are_arrays_of_one_length() -> None:
    run = answers()
    assert len(run) == 60 == len(calibration_plot.together([run.take(np.arange(30)), run.take(np.arange(30, 60))]))
