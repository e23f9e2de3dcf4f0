"""docs/metrics.md is what the collectors say."""

from __future__ import annotations

from serve.metrics.reference import reference
from tests.helpers.command import ROOT


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == reference(), "write it anew: python -m serve.metrics.reference > docs/metrics.md"
