"""What of MovieLens' catalogue becomes a text."""

from __future__ import annotations

from loadtests.quality.movielens import text_of


def test_what_is_missing_of_an_item_is_left_out() -> None:
    row = {"movie_title": "Toy Story", "release_year": "1995", "class": "Animation Comedy"}
    assert text_of(row) == "Toy Story (1995). Animation Comedy"
    assert text_of({**row, "release_year": "unkonwn", "class": "unknown"}) == "Toy Story."
    assert text_of({**row, "release_year": "V"}) == "Toy Story. Animation Comedy"
