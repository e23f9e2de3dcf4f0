"""Writes a topics file of many words: half of them from the seed's headlines, so that many texts have topics.

python loadtests/topics_file.py > /tmp/topics.yaml            2,000 words in 40 topics
python loadtests/topics_file.py --words 100000 > /tmp/topics.yaml
"""

from __future__ import annotations

import argparse
import random
import string
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # it is also run as a script

from loadtests.texts import seed_texts

_TOPICS, _MIN_LETTERS, _INVENTED_LETTERS = 40, 5, 8


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--words", type=int, default=2000, help="how many (default %(default)s)")
    words = draw_words(parser.parse_args().words)
    for topic in range(_TOPICS):
        print(f"topic {topic}: [{', '.join(words[topic::_TOPICS])}]")
    return 0


def draw_words(count: int) -> list[str]:
    """So many different words, in a seeded random order."""
    rng = random.Random(0)
    used = sorted({word.casefold() for text in seed_texts("sentiment") for word in text.split() if word.isalpha()})
    known = [word for word in used if len(word) >= _MIN_LETTERS]
    words = set(rng.sample(known, min(count // 2, len(known))))
    while len(words) < count:
        words.add("".join(rng.choices(string.ascii_lowercase, k=_INVENTED_LETTERS)))
    return rng.sample(sorted(words), count)


if __name__ == "__main__":
    raise SystemExit(main())
