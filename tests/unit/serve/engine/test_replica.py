"""A replica of a version with two readers: what its answers say, what is counted, and what it does when it is full."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import pytest
from prometheus_client import REGISTRY

from models.releases.release import Release, write_release
from models.tasks.intent import IntentRequest
from serve.config import Config, LimitsConfig, TaskConfig
from serve.engine.replica import Replica
from serve.errors import Overloaded
from serve.feedback.writer import now
from tests.helpers.collectors import registry_restored
from tests.helpers.tiny_readers import SURE, UNSURE, tiny_bundle, tiny_home

BOTH = ["linear", "encoder"]
WAIT_S = 0.4


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """Each replica registers its metrics anew."""
    with registry_restored():
        yield


@pytest.fixture(scope="module")
def two_readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_home(tmp_path_factory.mktemp("two"), slow=1024)


@pytest.fixture(scope="module")
def linear_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_home(tmp_path_factory.mktemp("linear"), encoder=False)


@pytest.fixture(scope="module")
def encoder_alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_home(tmp_path_factory.mktemp("encoder"), linear=False)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        asyncio.run(test(**fixtures))

    return run


@asynccontextmanager
async def serving(home: Path, **settings: Any) -> AsyncIterator[Replica]:
    config = Config(home=home, limits=LimitsConfig(wait_s=WAIT_S, texts=4096), **settings)
    replica = Replica("intent", config)
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()


async def ask(replica: Replica, *texts: str, **options: Any) -> list[dict[str, Any]]:
    request = IntentRequest(texts=list(texts), **options)
    answer = await replica.answer(replica.choose(None), request, time.monotonic() + 60)
    predictions: list[dict[str, Any]] = answer["predictions"]
    return predictions


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, {"task": "intent", **labels}) or 0.0


def answered() -> dict[str, float]:
    return {stage: count("flywheel_texts_total", version="1", stage=stage) for stage in BOTH}


@in_loop
async def test_details_name_the_readers_and_change_nothing_else(two_readers: Path) -> None:
    texts = [*SURE, UNSURE]
    async with serving(two_readers) as replica:
        plain = await ask(replica, *texts)
        detailed = await ask(replica, *texts, details=True)
    assert [prediction.pop("stages") for prediction in detailed] == [("linear",), ("linear",), tuple(BOTH)]
    assert detailed == plain  # without the key, and the last one from the cache


@pytest.mark.parametrize(
    ("home", "settings", "stages"),
    [
        ("linear_alone", {}, ("linear",)),
        ("encoder_alone", {}, ("encoder",)),
        ("two_readers", {"tasks": {"intent": TaskConfig(early_answers="off")}}, tuple(BOTH)),
    ],
)
def test_all_texts_have_the_same_readers_where_there_is_no_choice(
    home: str, settings: dict[str, Any], stages: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    async def scenario() -> None:
        async with serving(request.getfixturevalue(home), **settings) as replica:
            predictions = await ask(replica, *SURE, UNSURE, details=True)
            (details,) = replica.metadata()["version_details"]
        assert [prediction["stages"] for prediction in predictions] == [stages] * 3
        assert answered() == {"linear": 0, "encoder": 0} | {stages[-1]: 3}
        assert (details["readers"], details["early_answers"]) == (stages, None)

    asyncio.run(scenario())


@in_loop
async def test_the_share_of_early_answers_counts_cached_texts_too(two_readers: Path) -> None:
    async with serving(two_readers) as replica:
        for _ in range(5):
            await ask(replica, *SURE, UNSURE)
        (details,) = replica.metadata()["version_details"]
    assert answered() == {"linear": 10, "encoder": 5}
    assert count("flywheel_batch_size_sum", version="1") == 1, "the encoder ran the text once"
    assert details["readers"] == tuple(BOTH)
    assert details["early_answers"] == {
        "above": 0.9, "min_known": 0.8, "share": 0.6, "agreement": 0.995, "accuracy": 0.99,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("home", "early"), [("two_readers", [True, True, False]), ("linear_alone", [True] * 3), ("encoder_alone", None)]
)
def test_the_log_knows_which_answers_were_early(
    home: str, early: list[bool] | None, request: pytest.FixtureRequest
) -> None:
    async def scenario() -> Any:
        async with serving(request.getfixturevalue(home)) as replica:
            asked = now()
            await ask(replica, *SURE, UNSURE, details=True)
            await asyncio.sleep(0)  # an answer is logged in the next turn of the event loop
            await replica.prediction_logger.flush()
            (row,) = await replica.prediction_logger.query(lambda store: store.predictions.latest("intent", asked, 9))
        return row.output

    logged = asyncio.run(scenario())
    assert [output.pop("early", None) for output in logged] == (early or [None] * 3)
    assert [set(output) - {"reason"} for output in logged] == [{"confidence", "handoff", "label", "score"}] * 3
    assert all(("reason" in output) is output["handoff"] for output in logged)


@in_loop
async def test_odd_texts_and_many(two_readers: Path) -> None:
    odd = ["unheard of words", "unheard", "cancel", "x" * 100_000, "w7 " * 33_333]
    many = [next(iter(SURE)), *odd, UNSURE] * 19
    async with serving(two_readers) as replica:
        together = await ask(replica, *many[:128], details=True)
        alone = [(await ask(replica, text, details=True))[0] for text in many[:7]]
    assert together == (alone * 19)[:128]
    assert [prediction["stages"] for prediction in alone] == [("linear",)] + [tuple(BOTH)] * 6


@pytest.mark.parametrize("mode", ["shadow", "canary"])
def test_a_challenger_answers_early_too(tmp_path: Path, mode: Literal["shadow", "canary"]) -> None:
    home = tiny_home(tmp_path, encoder=False)
    tiny_bundle(home / "bundles" / "intent" / "2", encoder=False)
    paths = {version: f"bundles/intent/{version}" for version in ("1", "2")}
    share = 0.999 if mode == "canary" else 0.0
    write_release(home, Release(task="intent", champion="1", versions=paths, challenger="2", mode=mode, share=share))

    async def scenario() -> None:
        async with serving(home) as replica:
            await ask(replica, *SURE)
            async with asyncio.timeout(10):
                while not count("flywheel_texts_total", version="2", stage="linear"):
                    await ask(replica, *SURE)
                    await asyncio.sleep(0.01)  # what follows a response is done in the loop's next turn

    asyncio.run(scenario())
    assert count("flywheel_texts_total", version="2", stage="linear") % len(SURE) == 0
    assert (count("flywheel_shadow_texts_total", version="2", result="agree") > 0) == (mode == "shadow")
    assert not count("flywheel_texts_total", version="2", stage="encoder")


@asynccontextmanager
async def full(replica: Replica) -> AsyncIterator[None]:
    """With more work in the queue than a new text may wait for, however short it is."""
    long = [f"w{number % 100} " * 60 + f"w{number // 100} " * 60 for number in range(4000)]
    work = asyncio.create_task(ask(replica, *long))
    while replica.choose(None).batcher.wait_s(tokens=3) < 2 * WAIT_S:
        assert not work.done()
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


@in_loop
async def test_a_full_replica_answers_early_and_refuses_the_rest(two_readers: Path) -> None:
    async with serving(two_readers) as replica, full(replica):
        for _ in range(20):
            (prediction,) = await ask(replica, *list(SURE)[:1], details=True)
            assert prediction["stages"] == ("linear",)
        with pytest.raises(Overloaded, match=r"^the model is busy for the next [\d.]+ s; try again later$") as refusal:
            await ask(replica, UNSURE)
        assert refusal.value.retry_after >= 1
        assert replica.backlog_s > WAIT_S, "the early answers waited for the encoder"


@in_loop
async def test_a_request_waits_for_all_of_its_texts(two_readers: Path) -> None:
    async with serving(two_readers) as replica, full(replica):
        sure = [list(SURE)[number % 2] for number in range(31)]
        with pytest.raises(Overloaded, match="which 1 of the 32 texts need; try again later"):
            await ask(replica, *sure, UNSURE)
        assert count("flywheel_dropped_texts_total", reason="overloaded") == 32
        assert len(await ask(replica, *sure)) == 31
        assert answered()["encoder"] == 0


@in_loop
@pytest.mark.parametrize("early", [True, False])
async def test_no_proxy_refuses_for_a_replica_that_answers_early(two_readers: Path, early: bool) -> None:
    """Not even the first request of an overload, when all that came before was no load."""
    async with serving(two_readers) as replica:
        for number in range(50):
            await ask(replica, *list(SURE)[:1] if early and number % 2 else [f"w{number}"])
        async with full(replica):
            with pytest.raises(Overloaded) as refusal:
                await ask(replica, UNSURE)
    assert (refusal.value.full_s == 0.0) is early


@in_loop
async def test_a_replica_whose_event_loop_is_late_marks_itself_full_and_later_refuses(two_readers: Path) -> None:
    async with serving(two_readers) as replica:
        for _ in range(20):
            await ask(replica, *list(SURE)[:1])
        replica.observe_lag(WAIT_S / 4)
        assert await ask(replica, *list(SURE)[:1])
        async with full(replica):
            with pytest.raises(Overloaded) as refusal:
                await ask(replica, UNSURE)
        assert refusal.value.full_s == pytest.approx(WAIT_S / 4)
        replica.observe_lag(WAIT_S)
        with pytest.raises(Overloaded, match="more requests arrive than can be read; try again later") as refusal:
            await ask(replica, *list(SURE)[:1])
        assert refusal.value.full_s == pytest.approx(WAIT_S)
        assert count("flywheel_dropped_texts_total", reason="overloaded") == 2
        replica.observe_lag(0.0)
        assert await ask(replica, *list(SURE)[:1])


TWO_WISHES = "cancel it and track it"
LABELS_OF = [("cancel_order", 0, 9), ("track_order", 14, 22)]
OFF = {"tasks": {"intent": TaskConfig(options={"several_intents": False})}}


def found(prediction: dict[str, Any]) -> list[tuple[str, int, int]]:
    return [(intent["label"], intent["start"], intent["end"]) for intent in prediction.get("intents", [])]


@pytest.mark.parametrize("home", ["two_readers", "linear_alone"])
def test_a_text_of_two_wishes_has_both_with_their_clauses(home: str, request: pytest.FixtureRequest) -> None:
    texts = [TWO_WISHES, "cancel it and cancel it", "cancel it", "track it. then cancel it"]

    async def scenario() -> None:
        async with serving(request.getfixturevalue(home)) as replica:
            together = await ask(replica, *texts)
            again = await ask(replica, *reversed(texts))
            alone = [(await ask(replica, text))[0] for text in texts]
        assert [found(one) for one in together] == [
            LABELS_OF,
            [],
            [],
            [("track_order", 0, 8), ("cancel_order", 15, 24)],
        ]
        assert together == alone == again[::-1]
        assert all(0.9 <= intent["score"] <= 1 for intent in together[0]["intents"])
        assert "intents" not in together[1]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("home", "settings"),
    [
        ("two_readers", OFF),
        ("encoder_alone", {}),
        ("two_readers", {"tasks": {"intent": TaskConfig(early_answers="off")}}),
    ],
    ids=["switched off", "no linear reader", "no early answers"],
)
def test_wishes_are_looked_for_where_a_linear_reader_reads_clauses(
    home: str, settings: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    async def scenario() -> list[tuple[str, int, int]]:
        async with serving(request.getfixturevalue(home), **settings) as replica:
            return found((await ask(replica, TWO_WISHES))[0])

    early_off = "tasks" in settings and settings is not OFF
    assert asyncio.run(scenario()) == (LABELS_OF if early_off else [])


@in_loop
async def test_the_encoder_reads_only_the_clause_of_which_the_linear_reader_is_not_sure(tmp_path: Path) -> None:
    async with serving(tiny_home(tmp_path)) as replica:
        (sure, unsure), alone = await answers_of_encoder(replica)
        ran = await texts_run()
        texts = [f"track it and {sure}", f"track it and {unsure}"]
        predictions = await ask(replica, *texts)
        assert await texts_run() == ran + 4, "two texts, and a clause of each"
        assert await ask(replica, *texts) == predictions
        assert await texts_run() == ran + 4, "both are cached now"
        assert [found(one) for one in predictions] == [
            [("track_order", 0, 8), ("cancel_order", 13, 13 + len(sure))],
            [],
        ]
        assert predictions[0]["intents"][1]["score"] == pytest.approx(alone[sure], abs=1e-6)


async def texts_run() -> float:
    """The texts that the encoder has run, counted in the event loop's next turns."""
    await asyncio.sleep(0.01)
    return count("flywheel_batch_size_sum", version="1")


async def answers_of_encoder(replica: Replica) -> tuple[tuple[str, str], dict[str, float]]:
    """Two texts of which the linear reader has no opinion: the encoder is sure of the first one, to be cancelled."""
    texts = [" ".join([f"w{number}"] * times) for number in range(40) for times in (2, 60)]
    of_both = {
        text: prediction["score"]
        for text, prediction in zip(texts, await ask(replica, *texts), strict=True)
        if prediction["label"] == "cancel_order"
    }
    return (max(of_both, key=lambda text: of_both[text]), min(of_both, key=lambda text: of_both[text])), of_both


def test_a_clause_that_was_read_does_not_change_the_answer_to_the_same_text(two_readers: Path) -> None:
    texts = ["w1 w2 w3", "track it", "cancel it"]

    async def scenario(*before: str) -> list[dict[str, Any]]:
        with registry_restored():
            async with serving(two_readers) as replica:
                if before:
                    await ask(replica, *before)
                return await ask(replica, *texts, details=True)

    assert asyncio.run(scenario("track it and w1 w2 w3", TWO_WISHES)) == asyncio.run(scenario())


@in_loop
async def test_all_that_is_about_a_text_is_about_the_text_and_not_its_clauses(two_readers: Path) -> None:
    texts = ["cancel it", TWO_WISHES, "track it and w5 w6", "track it and " + "w7 " * 200]
    async with serving(two_readers) as replica:
        asked = now()
        predictions = await ask(replica, *texts, details=True)
        explained = await ask(replica, TWO_WISHES, explain=True)
        await replica.prediction_logger.flush()
        rows = await replica.prediction_logger.query(lambda store: store.predictions.latest("intent", asked, 9))
    assert len(predictions) == len(texts)
    assert [prediction.get("truncated", False) for prediction in predictions] == [False, False, False, True]
    assert predictions[0]["stages"] == ("linear",)
    logged = max(rows, key=lambda row: len(row.output))
    assert logged.input == texts
    assert len(logged.output) == len(texts)
    assert not any("intents" in output for output in logged.output)
    assert sum(answered().values()) == len(texts) + 1
    (explanation,) = [prediction["explanation"] for prediction in explained]
    assert [word["word"] for word in explanation["words"]] == TWO_WISHES.split()
    assert found(explained[0]) == LABELS_OF


@pytest.mark.parametrize(
    "text",
    [
        "and but also then",
        "cancel it and " * 10_000,
        "😀😀, 😀 and 😀",
        "cancel. it",
        ", , ,",
        "track it, " + "w1 " * 50_000,
    ],
)
def test_odd_texts_with_joints_are_answered(two_readers: Path, text: str) -> None:
    async def scenario() -> None:
        async with serving(two_readers) as replica:
            (prediction,) = await ask(replica, text)
            assert prediction["label"]
            assert "intents" not in prediction

    asyncio.run(scenario())
