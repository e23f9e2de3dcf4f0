"""Releases with a challenger."""

from __future__ import annotations

from models.releases.release import Release

CANARY = Release(
    task="intent", champion="1", versions={"1": "a", "2": "b"}, challenger="2", mode="canary", share=0.1, previous="0"
)
SHADOW = CANARY.model_copy(update={"mode": "shadow", "share": 0.0})
