"""The fixtures of the store's tests."""

from tests.helpers.store_fixtures import postgres, url

__all__ = ["postgres", "url"]
