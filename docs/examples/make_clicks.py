"""Writes clicks.csv beside it: a month of an invented shop with the products of products.csv.

    python docs/examples/make_clicks.py

Each visitor has a taste for one or two categories, and opens, carts and buys most of what belongs to them.
"""

from __future__ import annotations

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

FOLDER = Path(__file__).parent
VISITORS, SHOWN = 80, 30
START = datetime(2026, 10, 1, 6, tzinfo=UTC)
OPENED_OF_TASTE, OPENED_OF_OTHERS = 0.5, 0.08

Row = tuple[datetime, str, str, str]


def rows_of(visitor: str, products: list[dict[str, str]], rng: random.Random) -> list[Row]:
    """What a visitor was shown, and did, in some sessions of the month."""
    categories = sorted({product["category"] for product in products})
    taste = rng.sample(categories, rng.choice((1, 1, 2)))
    rows: list[Row] = []
    time = START
    for product in rng.sample(products, SHOWN):
        time += timedelta(hours=rng.choice((0, 0, 0, 0, 70)), seconds=rng.randint(20, 900))
        steps = ["impression"]
        if rng.random() < (OPENED_OF_TASTE if product["category"] in taste else OPENED_OF_OTHERS):
            steps.append("page_view")
            if rng.random() < 0.3:
                steps.append("add_to_cart")
                steps.append(rng.choice(("purchase", "remove_from_cart", "purchase")))
        for step in steps:
            rows.append((time, step, product["product_id"], visitor))
            time += timedelta(seconds=rng.randint(3, 90))
    return rows


def main() -> None:
    with (FOLDER / "products.csv").open(encoding="utf-8", newline="") as file:
        products = list(csv.DictReader(file))
    rng = random.Random(7)
    rows = [row for number in range(1, VISITORS + 1) for row in rows_of(f"v{number:03}", products, rng)]
    with (FOLDER / "clicks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("event_time", "event_type", "product_id", "visitor"))
        writer.writerows((f"{time:%Y-%m-%d %H:%M:%S} UTC", *rest) for time, *rest in sorted(rows))


if __name__ == "__main__":
    main()
