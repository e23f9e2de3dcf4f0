"""The fixtures of the store's tests."""

from tests.helpers.store_fixtures import clock, postgres, store, url

__all__ = ["clock", "postgres", "store", "url"]
