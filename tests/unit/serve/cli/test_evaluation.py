"""`flywheel evaluate`: from drawn rankings in the log, and what users chose, to the value of another version."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from export.bundle import Bundle
from export.model import Model
from models.evaluation.logged_rankings import judge, read_rankings
from models.evaluation.off_policy import Estimate, PolicyValue, estimate
from models.feedback.store import Store
from models.feedback.types import LoggedPrediction, NewFeedback
from models.home import bundle_folder
from models.releases.release import Release, local_versions, write_release
from models.tasks.recommendation import RankRequest, Recommendation
from models.training.candidate import TrainingJob
from models.training.first_version import build_first_version
from models.training.pipeline import register_candidate
from serve.cli.evaluation import conclusion
from serve.config import Config, TaskConfig
from serve.engine.replica import Replica
from tests.helpers.collectors import registry_restored
from tests.helpers.command import Command, refused

TASK = "recommendation"
KINDS = ("tent camping outdoor", "velvet cushion sofa")
CHOICES = (("click", None), ("rating", 5.0), ("dwell", 60.0), ("like", None))
REFUSALS = (("view", None), ("rating", 2.0), ("dwell", 3.0), ("dislike", None))


def behaviour(file: Path) -> Path:
    """Users who click one of two kinds of items."""
    draw, rows = np.random.default_rng(0), ["user_id,item_id,event,time,text"]
    for user in range(40):
        for place in range(12):
            item = int(draw.integers(20))
            event = "click" if item % 2 == user % 2 else "view"
            rows.append(f"u{user},i{item},{event},{place},{KINDS[item % 2]} number{item}")
    file.write_text("\n".join(rows))
    return file


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with two versions; requests to the first have been answered, with exploration, and users have chosen.

    Users choose what is like their history, which version 1 has learned. A third of the answers were not drawn.
    """
    home = tmp_path_factory.mktemp("home")
    for _ in range(2):
        data = behaviour(home / "shop.csv")
        candidate = build_first_version(TrainingJob(TASK, data), home, lambda *_: None)
        register_candidate(candidate, home, mlflow=False)
    assert local_versions(home, TASK) == ["1", "2"]
    store = Store.open(f"sqlite:///{home / 'feedback.db'}")
    bundle = Bundle.open(bundle_folder(home, TASK, "1"))
    task, model = Recommendation(bundle), Model.open(bundle)
    task._rng = np.random.default_rng(2)
    draw, start = np.random.default_rng(1), datetime.now(UTC) - timedelta(hours=1)
    rows, events = [], []
    for number in range(360):
        at, id_ = start + timedelta(seconds=number), f"{number:032x}"
        likes = int(draw.integers(2))
        body = {
            "user": {"id": f"u{number % 60}", "history": [f"{KINDS[likes]} number{n}" for n in (1, 3)]},
            "candidates": [{"id": f"i{n}", "text": f"{KINDS[n % 2]} number{n}"} for n in range(10)],
            "explore": 0.8 if number % 3 else 0,
            "diversity": 0.2 if number % 2 else 0,
            "top_k": 4,
        }
        request = RankRequest.model_validate(body)
        texts = task.texts(request)
        answer = task.decode(request, model.predict(texts), [False] * len(texts))
        kept = [{name: row[name] for name in ("id", "score", "propensity") if name in row} for row in answer]
        rows.append(LoggedPrediction(id_, TASK, "1", request.model_dump(), kept, at, user=f"hash{number % 60}"))
        for row in kept:
            mine = int(row["id"][1:]) % 2 == likes
            if draw.random() < (0.6 if mine else 0.1):
                consent = bool(draw.random() < 0.5)  # without it, it still counts
                said, value = CHOICES[number % len(CHOICES)]
            else:
                said, value, consent = *REFUSALS[number % len(REFUSALS)], True
            events.append(
                NewFeedback(TASK, "shop", consent, at, prediction_id=id_, item_id=row["id"], event=said, value=value)
            )
    store.predictions.log(rows)
    assert {receipt.outcome for receipt in store.feedback.add(events, keep_days=30)} == {"accepted"}
    store.close()
    return home


def test_a_version_judged_by_its_own_answers_has_the_value_that_was_logged(run: Command, shop: Path) -> None:
    done = run("evaluate", TASK, "--policy", "1", "--positions", "3", home=shop)
    assert done.returncode == 0, done.stderr
    assert "240/240" in done.stdout  # the bar
    assert "version 1, judged by 240 answers to 40 users, who chose" in done.stdout
    figures = [line.split()[-4:] for line in done.stdout.splitlines() if line.split()[-2:-1] == ["to"]]
    shown, snips, robust, difference = [[float(number) for number in (row[0], row[1], row[3])] for row in figures]
    assert shown == snips
    assert shown[1] < robust[0] < shown[2]
    assert difference[0] == pytest.approx(robust[0] - shown[0], abs=2e-4)
    assert "effective sample size by position: 240, 240, 240" in done.stdout


@pytest.mark.parametrize(
    ("low", "high", "sentence"),
    [
        (0.01, 0.2, "Users would choose more with version 7 than with what was shown."),
        (-0.2, -0.01, "Users would choose less with version 7 than with what was shown."),
        (-0.1, 0.1, "The log does not tell version 7 from what was shown: the difference may be 0."),
    ],
)
def test_the_conclusion(low: float, high: float, sentence: str) -> None:
    one, difference = Estimate(0.5, 0.4, 0.6), Estimate((low + high) / 2, low, high)
    assert conclusion("7", PolicyValue(100, 20, 50, one, one, one, difference, (100.0,))) == sentence


def test_a_version_that_knows_less_is_worse(shop: Path) -> None:
    store, bundle = Store.open(f"sqlite:///{shop / 'feedback.db'}"), Bundle.open(bundle_folder(shop, TASK, "1"))
    logged = read_rankings(store, TASK, 1000)
    store.close()
    assert len(logged) == 240
    assert all(len(ranking.items) == 4 and ranking.user.startswith("hash") for ranking in logged)
    task, done = Recommendation(bundle), []
    task._ranker.arrays |= {name: 0.1 * task._ranker.arrays[name] for name in ("item_vectors", "item_terms")}
    judged = judge(logged, task, Model.open(bundle), 1, done.append)
    assert done == [100, 200, 240]
    value = estimate(judged, 1)
    assert value.difference.high < 0
    assert value.snips.value == pytest.approx(value.doubly_robust.value, abs=0.1)
    assert max(value.effective) < 240
    assert [len(ranking.order) for ranking in judged] == [1] * 240


def test_a_version_is_judged_with_other_exploration_than_was_logged(shop: Path) -> None:
    store, bundle = Store.open(f"sqlite:///{shop / 'feedback.db'}"), Bundle.open(bundle_folder(shop, TASK, "1"))
    logged = read_rankings(store, TASK, 1000)
    store.close()
    values = []
    for explore in (0.5, 0.8, 1.0):
        judged = judge(logged, Recommendation(bundle), Model.open(bundle), 1, explore=explore)
        values.append(estimate(judged, 1))
        assert all(ranking.probabilities.sum() == pytest.approx(1.0) for ranking in judged)
    bolder, drawn, uniform = values
    assert bolder.snips.value > uniform.snips.value  # users choose what it ranks first
    assert drawn.snips.value == pytest.approx(drawn.logged.value)
    assert bolder.effective < drawn.effective


def test_what_a_version_cannot_be_asked_again_is_left_out(shop: Path) -> None:
    store, bundle = Store.open(f"sqlite:///{shop / 'feedback.db'}"), Bundle.open(bundle_folder(shop, TASK, "1"))
    newest = read_rankings(store, TASK, 3)
    store.close()
    assert len(newest) == 3
    newest[0].request["candidates"].append(newest[0].request["candidates"][0])  # refused today
    newest[1].request["candidates"] = newest[1].request["candidates"][:1]  # not what was shown
    assert len(judge(newest, Recommendation(bundle), Model.open(bundle), 4)) == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TASK, "--policy", "9"), "recommendation has no version 9 on this machine; there are: 1, 2."),
        (("intent", "--policy", "1"), "only rankings are judged by their log, and intent ranks nothing."),
        (("nope", "--policy", "1"), "There is no task 'nope'"),
        ((TASK, "--policy", "1", "--answers", "99"), "99 answers to 40 users have propensities; an estimate needs 100"),
    ],
)
def test_a_mistake_is_a_sentence(run: Command, shop: Path, arguments: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused(run("evaluate", *arguments, home=shop))


def test_a_log_without_propensities_says_how_to_get_them(run: Command, shop: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles").symlink_to(shop / "bundles")
    found = refused(run("evaluate", TASK, "--policy", "1", home=tmp_path))
    assert found.startswith("0 answers to 0 users have propensities")
    assert 'Send requests with "explore" above 0' in found


async def ask(home: Path, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers of a replica to these requests, once they are logged."""
    config = Config(home=home, tasks={TASK: TaskConfig()})
    replica = Replica(TASK, config)
    await replica.start()
    try:
        answers = []
        for body in requests:
            version = replica.choose(None)
            answers.append(await replica.answer(version, RankRequest.model_validate(body), time.monotonic() + 30))
            await asyncio.sleep(0.05)  # for the comparison in shadow
        await replica.prediction_logger.flush()
        return answers
    finally:
        await replica.stop()


def test_a_replica_logs_what_it_drew_and_does_not_compare_it_in_shadow(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles").symlink_to(shop / "bundles")
    paths = {version: f"bundles/{TASK}/{version}" for version in ("1", "2")}
    write_release(tmp_path, Release(task=TASK, champion="1", versions=paths, challenger="2", mode="shadow"))
    plain = {"candidates": [{"id": f"i{n}", "text": f"{KINDS[n % 2]} number{n}"} for n in range(6)], "top_k": 3}
    drawn = {**plain, "user": {"id": "ann"}, "explore": 0.7, "diversity": 0.3, "explain": True}
    with registry_restored():
        answers = asyncio.run(ask(tmp_path, [drawn, plain, drawn]))
        labels = {"task": TASK, "version": "2", "result": "agree"}
        assert REGISTRY.get_sample_value("flywheel_shadow_texts_total", labels) == 3  # of `plain` alone
        assert not REGISTRY.get_sample_value("flywheel_shadow_texts_total", {**labels, "result": "differ"})
    store = Store.open(f"sqlite:///{tmp_path / 'feedback.db'}")
    logged = read_rankings(store, TASK, 10)
    rows = {row.id: row for row in store.predictions.newest(TASK)}
    store.close()
    assert len(rows) == 3
    assert rows[answers[1]["id"]].output == answers[1]["predictions"]
    for ranking, answer in zip(logged, [answers[2], answers[0]], strict=True):
        assert ranking.items == tuple(item["id"] for item in answer["predictions"])
        assert ranking.propensities.tolist() == [item["propensity"] for item in answer["predictions"]]
        assert (ranking.request["explore"], ranking.request["diversity"]) == (0.7, 0.3)
        assert ranking.user == ranking.request["user"]["id"] != "ann"
        assert "reasons" not in rows[answer["id"]].output[0]
