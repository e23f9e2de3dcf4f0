"""Which version answers: the champion, a canary for its share of the users, a pinned one."""

from __future__ import annotations

import pytest

from serve.engine.routing import Router
from serve.errors import NotFound
from tests.helpers.releases import CANARY, SHADOW

LOADED = {"1": "first", "2": "second"}


def test_a_canary_gets_its_share_of_the_users_and_each_user_one_version() -> None:
    router = Router(CANARY, LOADED)
    users = [f"user {number}" for number in range(20_000)]
    chosen = {user: router.choose(None, user) for user in users}
    assert abs(sum(version == "second" for version in chosen.values()) / len(users) - 0.1) < 0.01
    assert all(router.choose(None, user) == version for user, version in chosen.items())
    strangers = [router.choose() for _ in range(20_000)]
    assert abs(strangers.count("second") / len(strangers) - 0.1) < 0.01


def test_each_challenger_is_tried_on_other_users() -> None:
    other = Router(
        CANARY.model_copy(update={"challenger": "3", "versions": {"1": "a", "3": "c"}}), {"1": "x", "3": "y"}
    )
    users = [f"user {number}" for number in range(5000)]
    both = sum(Router(CANARY, LOADED).choose(None, u) == "second" and other.choose(None, u) == "y" for u in users)
    assert both / len(users) < 0.02  # a tenth of a tenth


def test_shadow_and_pinned_versions() -> None:
    router = Router(SHADOW, LOADED)
    assert {router.choose(None, f"user {number}") for number in range(100)} == {"first"}
    assert router.shadow == "second"
    assert router.choose("2") == "second"
    with pytest.raises(NotFound):
        router.choose("3")
    assert (router.release.traffic("1"), router.release.traffic("2")) == (1.0, 0.0)
    assert (Router(CANARY, LOADED).release.traffic("1"), Router(CANARY, LOADED).release.traffic("2")) == (0.9, 0.1)
