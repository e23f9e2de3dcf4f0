"""Loaded versions: the memory of their caches, and what becomes of a release that cannot be loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from export.errors import BundleError
from models.releases.release import Release
from models.tasks.intent import Intent
from serve.config import Config
from serve.engine.admission import Admission
from serve.engine.model_repository import ModelRepository, cached_outputs
from serve.metrics import Metrics
from tests.helpers.collectors import registry_restored
from tests.helpers.tiny_readers import SURE, linear_arrays, tiny_bundle, tiny_home


@pytest.mark.parametrize(
    ("texts", "labels", "cached"), [(10_000, 28, 10_000), (10_000, 0, 10_000), (0, 2000, 0), (10_000, 2000, 4194)]
)
def test_the_cache_of_a_version_with_many_labels_takes_32_mb(texts: int, labels: int, cached: int) -> None:
    assert cached_outputs(texts, labels) == cached


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    with registry_restored():
        yield Metrics("intent")


def test_a_version_whose_linear_reader_is_damaged_is_not_taken(tmp_path: Path, metrics: Metrics) -> None:
    home = tiny_home(tmp_path, encoder=False)
    weights = linear_arrays()["weights"].copy()
    weights[0] = np.nan
    tiny_bundle(home / "bundles" / "intent" / "2", encoder=False, arrays={**linear_arrays(), "weights": weights})
    paths = {version: f"bundles/intent/{version}" for version in ("1", "2")}
    promoted = Release(task="intent", champion="2", versions=paths, previous="1")
    canary = Release(task="intent", champion="1", versions=paths, challenger="2", mode="canary", share=0.5)

    async def scenario() -> None:
        repository = ModelRepository(Intent, Config(home=home), Admission(1.0), metrics)
        repository.start()
        with pytest.raises(BundleError, match="its weights are not finite"):
            await repository.apply(promoted)
        assert repository.router.choose(None, None).version == "1"
        assert (await repository.apply(canary)).startswith("version 2 is left out: BundleError: The linear reader in")
        version = repository.router.choose(None, None)
        assert (version.version, repository.router.release.challenger) == ("1", None)
        (row,) = await version.encoder.encode(list(SURE)[:1])
        (early,) = await version.early_answers([row.ids])
        assert early is not None
        await repository.stop()

    asyncio.run(scenario())
