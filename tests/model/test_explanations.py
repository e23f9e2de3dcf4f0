"""Explanations of the default models: they name the words that matter, and are the same whenever a text is asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import Bundle, write_bundle
from export.model import Model
from export.word_spans import words_of
from models.data.dataset import load_dataset
from models.evaluation.deletion import measure_deletion, without
from models.tasks.base import Prediction, get_task
from serve.config import BatchingConfig
from serve.engine.batcher import Batcher
from serve.engine.explaining import Explainer
from serve.engine.loaded_model import LoadedVersion
from serve.engine.token_cache import CachingEncoder
from serve.errors import InvalidRequest
from serve.metrics import Metrics
from tests.helpers.collectors import registry_restored

CLASSIFIERS = ("intent", "sentiment")
UNUSUAL = [
    "where is my order 88231?", "我的订单在哪里？", "😡😡 \U0001f468\u200d\U0001f469\u200d\U0001f467 naïve cafe\u0301",
    "zzzqqq", "?", "\ufe0f", "please " * 10, " ".join(f"word{i}" for i in range(60)), "x" * 100_000,
]  # fmt: skip


@pytest.mark.parametrize("task", CLASSIFIERS)
def test_the_strongest_words_change_the_label_three_times_as_often_as_any(
    task: str, bundle_of: Callable[[str], Path]
) -> None:
    """On every fourth text of the holdout; models/evaluation/deletion.py has the whole."""
    model = Model.open(Bundle.open(bundle_of(task)), providers="cpu")
    found = measure_deletion(model, [example.text for example in load_dataset(task).holdout[::4]])
    assert found.texts > 70
    assert found.ratio >= 3, found


@pytest.fixture(scope="module", params=["as trained", "encoder alone", "linear alone"])
def bundle(request: pytest.FixtureRequest, bundle_of: Callable[[str], Path], tmp_path_factory: Any) -> Bundle:
    """The intent task's bundle, and what it would be with one reader."""
    trained = Bundle.open(bundle_of("intent"))
    if request.param == "as trained":
        return trained
    encoder, linear = request.param == "encoder alone", trained.manifest.linear
    assert linear is not None
    fields = trained.manifest.model_dump(exclude={"format", "files"})
    arrays = {path.stem: np.load(path) for path in (trained.path / "linear").glob("*.npy")}
    return write_bundle(
        tmp_path_factory.mktemp("one reader") / "bundle",
        model=trained.model_path if encoder else None,
        tokenizer=trained.tokenizer_path,
        fields={**fields, "linear": None if encoder else fields["linear"]},
        assets={path.stem: trained.asset(path.stem) for path in (trained.path / "assets").glob("*.json")},
        arrays=None if encoder else arrays,
    )


@pytest.fixture(scope="module")
def metrics() -> Iterator[Metrics]:
    with registry_restored():
        yield Metrics("explanations")


def explained(
    bundle: Bundle, metrics: Metrics, requests: Sequence[Sequence[str]], max_words: int = 10_000
) -> list[list[Prediction]]:
    """The predictions of concurrent requests to a version with a batcher of its own."""

    async def ask(version: LoadedVersion, texts: Sequence[str]) -> list[Prediction]:
        encoded = await version.encoder.encode(texts)
        rows = [row.ids for row in encoded]
        early, deadline = await version.early_answers(rows), time.monotonic() + 60
        explainer = await Explainer.of_request(version, texts, rows, early, max_words)
        output = await version.outputs(rows, early, deadline)
        request = version.task.Request.model_validate({"texts": list(texts), "explain": True})
        predictions = version.task.decode(request, output, [row.truncated for row in encoded])
        await explainer.add_to(predictions, output, deadline)
        return predictions

    async def scenario() -> list[list[Prediction]]:
        model, task = Model.open(bundle, providers="cpu"), get_task("intent")(bundle)
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(
                lambda rows: task.activate(model.run(rows)), executor, BatchingConfig(), metrics, "1", cache_size=1000
            )
            encoder = CachingEncoder(model.encoder, bundle.manifest.max_length, 1000)
            version = LoadedVersion("1", "", bundle, task, model, encoder, batcher)
            batcher.start()
            answers = [await ask(version, requests[0])]  # then its texts are cached
            answers += await asyncio.gather(*(ask(version, texts) for texts in requests[1:]))
            await batcher.stop()
            return answers

    return asyncio.run(scenario())


def test_any_text_is_explained_the_same_alone_and_among_others(bundle: Bundle, metrics: Metrics) -> None:
    texts = [*UNUSUAL, *(example.text for example in load_dataset("intent").holdout[:5])]
    alone, *others = explained(bundle, metrics, [texts[::-1], texts, *([text] for text in texts)])
    together, each = others[0], [predictions[0] for predictions in others[1:]]
    for text, *answers in zip(texts, alone[::-1], together, each, strict=True):
        for answer in answers:
            assert_explained(text, answer, bundle)
            for one, other in zip(answer["explanation"]["words"], answers[0]["explanation"]["words"], strict=True):
                assert one == {**other, "contribution": pytest.approx(other["contribution"], abs=2e-4)}


def assert_explained(text: str, answer: Prediction, bundle: Bundle) -> None:
    explanation = answer["explanation"]
    assert explanation["label"] == answer["label"]
    total, words = explanation["total"], explanation["words"]
    assert sum(word["contribution"] for word in words) + explanation["rest"] == pytest.approx(total, abs=1e-9)
    assert 1 / (1 + np.exp(-total)) == pytest.approx(answer["score"], abs=2e-5)
    assert len(words) <= 48
    for word in words:
        assert text[word["start"] : word["end"]] == word["word"] == word["word"].strip()
    assert words or text == "\ufe0f"


def test_what_is_left_of_an_explained_text_is_answered_early_as_ever(
    bundle_of: Callable[[str], Path], metrics: Metrics
) -> None:
    """It may be another client's text. From the cache, it would have the blend's answer."""
    bundle = Bundle.open(bundle_of("intent"))
    text, rest = uncertain_until_a_word_is_left_out(Model.open(bundle, providers="cpu"))
    before = explained(bundle, metrics, [[rest]])[0]
    assert explained(bundle, metrics, [[text], [rest]])[1] == before


def uncertain_until_a_word_is_left_out(model: Model) -> tuple[str, str]:
    """A text that the encoder must read, and the same without a word, of which the linear reader is sure."""
    for text, _ in load_dataset("intent").holdout:
        (tokens,) = model.encoder.tokens([text])
        if model.early(tokens.ids) is None:
            for word in words_of(text, tokens, 48):
                rest = without(text, [word])
                ids = model.encoder.encode([rest])[0].ids
                if ids == word.left_out(tokens.ids) and model.early(ids) is not None:
                    return text, rest
    raise AssertionError("there is none")


def test_too_many_words_are_refused(bundle: Bundle, metrics: Metrics) -> None:
    with pytest.raises(InvalidRequest, match="the 3 texts have 12 words; at most 11"):
        explained(bundle, metrics, [["where is my order"] * 3], 11)
    (answer,) = explained(bundle, metrics, [["where is my order"]], 3)[0]  # one text always
    assert [word["word"] for word in answer["explanation"]["words"]] == ["where", "is", "my order"]
