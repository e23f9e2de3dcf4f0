"""Loaded versions: the memory of their caches."""

from __future__ import annotations

import pytest

from serve.engine.model_repository import cached_outputs


@pytest.mark.parametrize(
    ("texts", "labels", "cached"), [(10_000, 28, 10_000), (10_000, 0, 10_000), (0, 2000, 0), (10_000, 2000, 4194)]
)
def test_the_cache_of_a_version_with_many_labels_takes_32_mb(texts: int, labels: int, cached: int) -> None:
    assert cached_outputs(texts, labels) == cached
