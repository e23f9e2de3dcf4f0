"""A sentiment model and topics in another language than English, from a file of texts to an answer: in Chinese."""

from __future__ import annotations

import csv
from itertools import product
from pathlib import Path

import numpy as np

from export.bundle import Bundle
from export.model import Model
from models.tasks.sentiment import Sentiment, SentimentOptions, SentimentRequest
from models.training.candidate import TrainingJob
from models.training.first_version import build_first_version

# Of characters that the default base knows: what rises, falls or stays level.
THINGS = (
    "金", "石", "水", "火", "馬", "車", "食", "竹", "花", "王国", "日本", "東京", "豊田", "石井", "三井", "北海",
    "大阪", "長城", "青島", "神戸",
)  # fmt: skip
TIMES = ("", "本日", "今月", "三月", "明日", "年中", "新年", "立春", "秋月", "正月")
MOVES = {"positive": ("上", "大上"), "negative": ("下", "大下"), "neutral": ("平", "安平")}
TOPICS = "貴金属: [金]\n农业: [馬, 竹, 花]\n日本: [東京, 大阪, 三井]\n"


def test_a_chinese_model_and_chinese_topics_answer(tmp_path: Path) -> None:
    rows = [(f"{time}{thing}{move}", label) for label, moves in MOVES.items()
            for time, thing, move in product(TIMES, THINGS, moves)]  # fmt: skip
    with (tmp_path / "zh.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    (tmp_path / "topics.yaml").write_text(TOPICS, encoding="utf-8")
    built = build_first_version(TrainingJob("sentiment", tmp_path / "zh.csv"), tmp_path, lambda *_: None)
    assert built.metrics["accuracy"] > 0.95

    bundle = Bundle.open(built.bundle)
    task = Sentiment(bundle, SentimentOptions.model_validate({"topics": str(tmp_path / "topics.yaml")}))
    texts = ["昨日東京金大上", "東京竹市大下", "火車平"]
    request = SentimentRequest.model_validate({"documents": [{"text": text} for text in texts]})
    output = task.activate(np.asarray(Model.open(bundle).predict(task.texts(request)), np.float32))
    predictions = task.decode(request, output, [False] * 3)
    assert [prediction["label"] for prediction in predictions] == ["positive", "negative", "neutral"]
    assert [prediction["topics"] for prediction in predictions] == [["日本", "貴金属"], ["日本", "农业"], ["other"]]
