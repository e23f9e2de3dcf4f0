"""Writes behaviour.csv: what 400 invented users did in the shop of catalogue.csv.

Run it with `python -m models.data.seed.simulate`.

The behaviour is SIMULATED; no person clicked anything. It follows this preference model, with a fixed seed, so that
running it again gives the same bytes:

- Categories. A user's interest in the theme clusters of `THEMES` is drawn from a Dirichlet distribution, and 2 to 4
  favourite categories are drawn from it, so that favourites are related (camping goes with cycling). Each favourite
  has a strength between 0.6 and 1; every other category has 0.
- Styles. A user has a taste for 1 to 3 of the styles of `STYLES`, each with a strength between 0.6 and 1. An item has
  a style when its title or description has one of the style's words.
- Price. A user has a target price, log-normal around 40; an item costs |log price - log target| in utility.
- Popularity. Every item has a fixed quality, drawn from a normal distribution, that all users see alike.

The utility of an item is the weighted sum of these four (`WEIGHTS`) plus Gumbel noise, drawn anew for each impression.

A user sees 4 to 24 slates (log-normal around 12) of 8 distinct items, days apart: 4 sampled in proportion to
popularity (the exponential of the quality), 2 from the user's favourite categories while there are any left, the rest
uniformly. No user sees an item twice. An impression is clicked with a probability logistic in the utility; the
intercept is solved for so that 22 % of all impressions are positive. A click becomes a purchase with probability 0.3.

behaviour.csv has a row an impression: user_id, item_id, event (`view`: shown but not chosen, `click`, `buy`), time
(seconds since the shop opened, increasing for each user) and split: `holdout` for the newest fifth of a user's
slates, to the nearest whole slate and at least one, else `train`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

HERE = Path(__file__).parent
SEED = 20240607
USERS = 400
MIN_SLATES, MEDIAN_SLATES, MAX_SLATES = 6, 15, 24
SLATES_SPREAD = 0.4  # standard deviation of the logarithm
HOLDOUT_SHARE = 0.2
FROM_POPULAR, FROM_FAVOURITES, FROM_ALL = 4, 2, 2
POSITIVE_SHARE = 0.22
BUY_SHARE = 0.3
DAY = 86_400

# How much a full match of each part is worth; NOISE is the scale of the Gumbel noise. Together they make the taste
# learnable but far from deterministic: the AUCs that `main` prints are the check.
WEIGHTS = {"category": 3.0, "style": 2.6, "price": 1.0, "quality": 0.8}
NOISE = 0.6

THEMES = {
    "outdoors": ("camping", "running", "cycling", "photography"),
    "home": ("kitchen", "home-decor", "gardening", "coffee-tea"),
    "family": ("baby", "pets", "board-games"),
    "play": ("gaming", "board-games", "music-instruments"),
    "reading": ("books-crime", "books-science", "coffee-tea"),
    "work": ("home-office", "tools", "photography"),
    "care": ("skincare", "home-decor", "baby"),
}

# Whole words or phrases, lower case, separated by commas. Chosen by reading this catalogue: a broad word that mostly
# means something else here ("pocket", "film") is narrowed to the phrases that carry the style.
STYLES = {
    "ultralight": (
        "120-gram, 128 grams, 185 grams, 249-gram, 38-gram, 60-gram, 900 grams, 95-gram, barely 1.3 kilos, "
        "collapsible, featherlight, featherweight, feathery, foldable, folding, grams of, grams with, "
        "packs to, pocket edition, pocket fold, pocket guide, pocket pry, seventy grams, ultralight, very light, "
        "weigh barely, weighing, weighs, weight of a teabag, wisp"
    ),
    "minimalist": (
        "bare, blank, emptiness, empty, essentials, invisible, logos, minimal, minimalist, minimalists, no "
        "logo, no pattern, nothing else, nothing ornamental, one colour, one good, pared back, plain charcoal, plain "
        "deck, plain grey, plain notebook, plain oak, plain pebble, plain poncho, quiet keys, quiet toy, raking, "
        "serene, simple black, single black disc, single cone, single drawer, single speed, single steel, unadorned, "
        "white stoneware, zen"
    ),
    "retro": (
        "'62, '76, 1859, 1890, 1920s, 1930s, 1940s, 1947, 1950, 1955, 1961, 1962, 1964, 1969, 1970s, 1978, 1991, "
        "8-bit, arcade alley, atomic age, century ago, classic console, classics, diner, eighties, fifties, film "
        "camera, film grip, grandad's, grandma, grandma's, grandmother, grandmother's, grandpa's, heritage, "
        "mid-century, nineties, nostalgic, old floorboards, old-fashioned, retro, seventies, sixties, soviet, "
        "soviet-era, tin toy, valve, victoria, victorian, vintage, western film"
    ),
    "eco": (
        "bamboo, beach-found, carbon-neutral, compost, compostable, cork bar, cork cover, cork wall, cruelty-free, "
        "eco, eco-friendly, ecological, ecologist, ethical, hemp, home-compostable, landfill, landfills, low-impact, "
        "mend don't buy, organic, peat-free, planet-kind, plant-based, plant-forward, pre-loved, published repair "
        "guides, reclaimed, recycled, reef safe, refill, refurbished, regenerative, renewable, rescue the reef, "
        "reusable, rewilding, second life, shade grown, solar, solar-powered, sustainable, tree-free, vegan, zero "
        "waste"
    ),
    "luxury": (
        "aristocratic, bridle, calfskin, cashmere, caviar, champagne, château, collector's, crystal, crystals, "
        "decadent, extravagance, extravagant, full-grain, gilded, gilt, glamorous, glamour, gold leaf, gold nib, "
        "gold-flecked, gold-plated, goldleaf, grand, heavy crystal, imperial, indulgence, lavish, leatherbound, "
        "luxurious, luxury, mahogany, marble, murano, nappa, opulent, royal, royalty, silk road, silk robes, "
        "splendour, sumptuous, velvet"
    ),
    "budget": (
        "affordably, bargain, basic bundle, budget, cheap, cheapest, costing little, costs about, for the price of, "
        "frugal, inexpensive, less than a, less than cinema, little money, low price, modest wallets, ninety-nine "
        "cent, pennies, penny, pocket-money, priced so, rock-bottom, shoestring, skint student, student survival, "
        "thrifty, value trainers"
    ),
    "professional": (
        "advanced, clinical, coaches, competitive, curators, engineers, expedition, experienced, for mechanics, "
        "forensic, groomers, hospital pharmacists, master luthier, medical-grade, midwives, orchestra, practitioners, "
        "pro, professional, professional-grade, professionals, race frame, racing flats, racing wheel, "
        "restaurant-strength, retouchers, rigorous, roofing crews, soloists, stage piano, studio one, surgeons, "
        "tournament, vineyard crews, war reporters, working harness, working researchers"
    ),
    "beginner": (
        "101, basics, beginner, beginner's, beginners, clueless, couch to five, dummies', fearful, first flat, first "
        "night, first sling, first strategy, first-time, first-timers, foolproof, fumbling, how to read, "
        "introduction, learn drums, my first, newbie, newcomers, novices, patient primer, primer, rescue kit, "
        "starter, starters, step-by-step, teach total"
    ),
    "family": (
        "babies, baby, child, child-safe, child-sized, children, children's, eight-year-olds, families, "
        "family, first-time parents, four-year-olds, frazzled parents, homework, kids, kids', little builders, "
        "little whisk, newborn, nine-year-olds, nursery, parent pause, playhouse, preschoolers, seven-year-olds, "
        "six-year-olds, soaked parents, teddies, toddler, toddlers, two-year-olds, winter school"
    ),
    "playful": (
        "bubblegum, candy, candy colours, cartoon, cheeky, cheerful, colourful, dino, dinosaur, disco, electric "
        "purple, flamingo, funny, giggling, glitter, glittering, glittery, joyful, kitsch, laughter, "
        "million colours, neon, neon stripes, party camera, pink, pirate, pirate ship, pirates, playful, punk, "
        "rainbow, rave, roll-up, silly, squishy, unicorn"
    ),
    "tech": (
        "bluetooth, calibrator, companion app, digital scale, digital station, drone, electronic kit, electronic "
        "shifting, gadget, gadget-loving, gadgetry, gps, graphs, infrared, led, leds, machine vision, power meter, "
        "robot, robotics, satellites, sensor, sensors, smart, synthesizer, usb, vr, wireless, with an app, your phone"
    ),
}


class SimulatedItem(NamedTuple):
    """A row of the catalogue; `styles` are the positions in `STYLES` that its text matches."""

    id: str
    category: str
    price: float
    styles: tuple[int, ...]


class World(NamedTuple):
    """The shop: per item a row of category (one-hot), style (0 or 1), log price and quality."""

    ids: tuple[str, ...]
    categories: FloatArray
    styles: FloatArray
    log_prices: FloatArray
    quality: FloatArray


class SimulatedUser(NamedTuple):
    """What a user likes: a strength per category and per style, and the log of the target price."""

    categories: FloatArray
    styles: FloatArray
    log_price: float


class Impressions(NamedTuple):
    """All impressions, user by user and oldest first; `utility` is without the noise of each impression."""

    user: IntArray
    item: IntArray
    time: IntArray
    holdout: NDArray[np.bool_]
    utility: FloatArray


class Shop(NamedTuple):
    """The shop with its users and what was shown to them."""

    world: World
    users: list[SimulatedUser]
    shown: Impressions


def make_shop(rng: np.random.Generator) -> Shop:
    """The shop of behaviour.csv, if `rng` is new and seeded with `SEED`."""
    world = make_world(read_catalogue(HERE / "catalogue.csv"), rng)
    users = [make_user(rng) for _ in range(USERS)]
    return Shop(world, users, show(users, world, rng))


def styles_of(text: str) -> tuple[int, ...]:
    """Positions of the styles that have a word in the text."""
    return tuple(i for i, pattern in enumerate(_PATTERNS) if pattern.search(text.lower()))


def _pattern(words: str) -> re.Pattern[str]:
    # Hyphens count as part of a word, so that "gold" does not match "honey-gold" nor "working" "hard-working".
    options = "|".join(re.escape(word.strip()) for word in words.split(","))
    return re.compile(rf"(?<![\w-])(?:{options})(?![\w-])")


_PATTERNS = tuple(map(_pattern, STYLES.values()))


def read_catalogue(path: Path) -> list[SimulatedItem]:
    """The items in file order."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            SimulatedItem(
                row["id"], row["category"], float(row["price"]), styles_of(f"{row['title']}. {row['description']}")
            )
            for row in csv.DictReader(file)
        ]


def make_world(items: Sequence[SimulatedItem], rng: np.random.Generator) -> World:
    """The catalogue as arrays, with a quality drawn for each item."""
    names = category_names()
    return World(
        ids=tuple(item.id for item in items),
        categories=np.array([[float(item.category == name) for name in names] for item in items]),
        styles=np.array([[float(i in item.styles) for i in range(len(STYLES))] for item in items]),
        log_prices=np.log([item.price for item in items]),
        quality=rng.normal(0.0, 1.0, len(items)),
    )


def category_names() -> list[str]:
    """The 18 categories, in alphabetical order."""
    return sorted({category for theme in THEMES.values() for category in theme})


def make_user(rng: np.random.Generator) -> SimulatedUser:
    """A user drawn from the preference model."""
    names = category_names()
    interest = rng.dirichlet(np.full(len(THEMES), 0.25))
    # The floor keeps at least four categories possible when one theme takes all the interest.
    chance = np.full(len(names), 0.002)
    for share, theme in zip(interest, THEMES.values(), strict=True):
        for category in theme:
            chance[names.index(category)] += share / len(theme)
    favourites = rng.choice(len(names), rng.integers(2, 5), replace=False, p=chance / chance.sum())
    tastes = rng.choice(len(STYLES), rng.integers(1, 4), replace=False)
    return SimulatedUser(
        categories=_strengths(len(names), favourites, rng),
        styles=_strengths(len(STYLES), tastes, rng),
        log_price=float(rng.normal(np.log(40.0), 0.7)),
    )


def _strengths(size: int, chosen: IntArray, rng: np.random.Generator) -> FloatArray:
    strengths = np.zeros(size)
    strengths[chosen] = rng.uniform(0.6, 1.0, len(chosen))
    return strengths


def utilities(user: SimulatedUser, world: World) -> FloatArray:
    """The noiseless utility of every item for the user."""
    total: FloatArray = (
        WEIGHTS["category"] * (world.categories @ user.categories)
        + WEIGHTS["style"] * (world.styles @ user.styles)
        - WEIGHTS["price"] * np.abs(world.log_prices - user.log_price)
        + WEIGHTS["quality"] * world.quality
    )
    return total


def make_slate(user: SimulatedUser, world: World, seen: set[int], rng: np.random.Generator) -> IntArray:
    """The items of one slate in random order; they are added to `seen`, which are not shown again."""
    sources = (
        (FROM_POPULAR, np.exp(world.quality)),
        (FROM_FAVOURITES, (world.categories @ (user.categories > 0)).astype(np.float64)),
        (FROM_ALL, np.ones(len(world.ids))),
    )
    slate: list[int] = []
    for count, weights in sources:
        weights[list(seen)] = 0.0
        if np.count_nonzero(weights) < count:  # the user has seen all of the favourite categories
            weights = np.ones(len(world.ids))
            weights[list(seen)] = 0.0
        chosen = rng.choice(len(weights), count, replace=False, p=weights / weights.sum())
        slate += chosen.tolist()
        seen.update(chosen.tolist())
    return rng.permutation(np.array(slate, np.int64))


def slate_count(rng: np.random.Generator) -> int:
    """How many slates a user sees."""
    drawn = rng.lognormal(np.log(MEDIAN_SLATES), SLATES_SPREAD)
    return int(np.clip(round(drawn), MIN_SLATES, MAX_SLATES))


def show(users: Sequence[SimulatedUser], world: World, rng: np.random.Generator) -> Impressions:
    """All slates of all users."""
    size = FROM_POPULAR + FROM_FAVOURITES + FROM_ALL
    slates: list[int] = []
    held_out: list[NDArray[np.bool_]] = []
    items: list[IntArray] = []
    times: list[IntArray] = []
    utility: list[FloatArray] = []
    for user in users:
        values = utilities(user, world)
        seen: set[int] = set()
        start = int(rng.integers(0, 30 * DAY))
        slates.append(slate_count(rng))
        held_out.append(np.arange(slates[-1]) >= slates[-1] - max(1, round(HOLDOUT_SHARE * slates[-1])))
        for _ in range(slates[-1]):
            slate = make_slate(user, world, seen, rng)
            items.append(slate)
            times.append(start + np.cumsum(rng.integers(2, 40, size)))
            utility.append(values[slate])
            # Longer than any slate takes (8 x 40 s), so that time increases from slate to slate.
            start += int(rng.integers(DAY // 2, 10 * DAY))
    return Impressions(
        user=np.repeat(np.arange(len(users)), size * np.array(slates)),
        item=np.concatenate(items),
        time=np.concatenate(times),
        holdout=np.repeat(np.concatenate(held_out), size),
        utility=np.concatenate(utility),
    )


def solve_intercept(utility: FloatArray, share: float) -> float:
    """The intercept that makes the mean of logistic(utility + intercept) equal `share`, by bisection."""
    low, high = -50.0, 50.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if logistic(utility + middle).mean() < share else (low, middle)
    return low


def logistic(x: FloatArray) -> FloatArray:
    """1 / (1 + exp(-x))."""
    result: FloatArray = 1.0 / (1.0 + np.exp(-x))
    return result


def choose(shown: Impressions, rng: np.random.Generator) -> NDArray[np.str_]:
    """The event of each impression."""
    noisy = shown.utility + rng.gumbel(0.0, NOISE, len(shown.utility))
    clicked = rng.random(len(noisy)) < logistic(noisy + solve_intercept(noisy, POSITIVE_SHARE))
    bought = rng.random(len(noisy)) < BUY_SHARE
    return np.where(clicked, np.where(bought, "buy", "click"), "view")


def auc(scores: FloatArray, positive: NDArray[np.bool_]) -> float:
    """The probability that a positive scores above a negative; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    wins = ranks[positive].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(wins / (positive.sum() * (~positive).sum()))


def popularity_scores(shown: Impressions, positive: NDArray[np.bool_], items: int) -> FloatArray:
    """Per impression the item's share of positives in train, smoothed by ten impressions at the mean."""
    train = ~shown.holdout
    seen = np.bincount(shown.item[train], minlength=items)
    chosen = np.bincount(shown.item[train & positive], minlength=items)
    rates: FloatArray = (chosen + 10 * positive[train].mean()) / (seen + 10)
    return rates[shown.item]


def write(path: Path, world: World, shown: Impressions, events: NDArray[np.str_]) -> None:
    """Writes the behaviour as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("user_id", "item_id", "event", "time", "split"))
        for user, item, time, held_out, event in zip(
            shown.user, shown.item, shown.time, shown.holdout, events, strict=True
        ):
            writer.writerow((f"u{user + 1:03}", world.ids[item], event, time, "holdout" if held_out else "train"))


def main() -> None:
    """Writes behaviour.csv and prints how learnable it is."""
    rng = np.random.default_rng(SEED)
    world, _, shown = make_shop(rng)
    events = choose(shown, rng)
    write(HERE / "behaviour.csv", world, shown, events)

    positive = events != "view"
    held_out = shown.holdout
    popularity = popularity_scores(shown, positive, len(world.ids))
    print("items per style:", {name: int(count) for name, count in zip(STYLES, world.styles.sum(0), strict=True)})
    print(f"impressions: {len(events)} (train {int((~held_out).sum())}, holdout {int(held_out.sum())})")
    print("events:", {name: int((events == name).sum()) for name in ("view", "click", "buy")})
    print(f"positive share: {positive.mean():.3f} (holdout {positive[held_out].mean():.3f})")
    print(f"holdout AUC of the noiseless utility: {auc(shown.utility[held_out], positive[held_out]):.3f}")
    print(f"holdout AUC of the train click rate: {auc(popularity[held_out], positive[held_out]):.3f}")


if __name__ == "__main__":
    main()
