"""A file of topics is read as it is meant, and refused with lines and sentences."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from models.opinion.topics import Matcher
from models.opinion.topics_file import MAX_WORDS, TopicsError, read_topics
from tests.helpers.command import ROOT


def written(folder: Path, content: str | bytes) -> Path:
    file = folder / "topics.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    long = """\
# a comment
- name: central_banks
  aliases: [Fed, "U.S. Fed"]
  keywords:
    - interest rate
    - Fed
- name: oil
- {name: US dollar, keywords: null}
"""
    read = read_topics(written(tmp_path, "\ufeff" + long))
    assert read.names == ("central_banks", "oil", "US dollar")
    assert [tuple(word) for word in read.topics[0].words] == [
        ("central banks", 2, "name"), ("Fed", 3, "alias"), ("U.S. Fed", 3, "alias"),
        ("interest rate", 5, "keyword"), ("Fed", 6, "keyword"),
    ]  # fmt: skip
    short = "central_banks:\n  aliases: [Fed, U.S. Fed]\n  keywords: [interest rate, Fed]\noil:\nUS dollar: []\n"
    other = read_topics(written(tmp_path, short))
    for one, two in zip(read.topics, other.topics, strict=True):
        assert [(w.text, w.kind) for w in one.words] == [(w.text, w.kind) for w in two.words]
    [topic] = read_topics(written(tmp_path, "oil: crude\n")).topics
    assert [word.text for word in topic.words] == ["oil", "crude"]


def test_words_are_texts_whatever_yaml_makes_of_them(tmp_path: Path) -> None:
    words = ["ON", "no", "2330", "1e3", "null", "2026-01-01", "'[a-z]+'", "C++", "$ON", "a|b", "'\\d'", '"{x}?"']
    listed = "".join(f"    - {word}\n" for word in words)
    [topic] = read_topics(written(tmp_path, f"- name: 1234\n  keywords:\n{listed}")).topics
    words = [word.strip("'\"") for word in words]
    assert topic.name == "1234"
    assert [word.text for word in topic.words[1:]] == words
    matcher = Matcher(read_topics(tmp_path / "topics.yaml"))
    for word in words:
        assert matcher.topics(f"buy {word} now") == ["1234"], word
    assert matcher.topics("abcdef 77 onwards") == []


def test_what_copying_from_a_page_brings_along_is_left_out(tmp_path: Path) -> None:
    [topic] = read_topics(written(tmp_path, "central banks: ['\u200bFed\ufeff', 'rate\u00a0 cut']\n")).topics
    assert [word.text for word in topic.words] == ["central banks", "Fed", "rate cut"]


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("a: [x]\nb: [y]\nA: [z]\n", ["line 3: the topic 'A' is in line 1 already"]),
        ("- {name: a}\n- {name: a}\n", ["line 2: the topic 'a' is in line 1 already"]),
        ("a: [x, '', ' ', ~]\n", ["line 1: an empty keyword of 'a', which would be in every text. Remove it."]),
        ("- name: a\n  aliases:\n  - ''\n", ["line 3: an empty alias of 'a'"]),
        ("a: ['...']\n", ["line 1: the keyword '...' of 'a' has no letter and no digit"]),
        ("a: [x]\nOther: [y]\n", ["line 2: 'other' is the topic of texts in which no topic is found"]),
        ('a: ["x\\e[2J"]\n', ["line 1: the keyword 'x\\x1b[2J' of 'a' has a control character"]),
        ("a: ['\u200b']\n", ["line 1: an empty keyword"]),
        ("ＯＴＨＥＲ: [y]\n", ["line 1: 'other' is the topic"]),
        ("a: [x]\n'': [y]\n", ["line 2: the topic '' has no name"]),
        ("a:\n- [x, y]\n- {b: c}\n", ["line 2: a word of 'a' must be a text", "line 3: a word of 'a' must be a text"]),
        (f"a: [{'x' * 101}]\n{'n' * 101}: [y]\n", ["line 1: the keyword 'xx", "line 2: the name 'nn"]),
        ("- {nome: a}\n- {name: b, words: x}\n", ["line 1: the topic has no name", "line 2: there is no key 'words'"]),
        ("- {name: b, keywords: [x], keywords: [y]}\n", ["keywords is given twice"]),
        ("- a\n", ["line 1: a topic is a mapping with name"]),
        ("oil\n", ["line 1: a list of topics is expected"]),
        ("? [a]\n: [x]\n", ["line 1: the name of a topic must be a text"]),
        ("[]\n", ["there are no topics"]),
        ("# nothing\n", ["is empty"]),
        ("", ["is empty"]),
        ("a: [x\nb: [y]\n", ["line 2: not valid YAML"]),
        ("a: [x\x01]\n", ["not valid YAML"]),
        (b"a: [x]\nb: [caf\xe9]\n", ["line 2: not UTF-8 (byte 0xe9). Save the file as UTF-8."]),
        ("a: [x]\n".encode("utf-16"), ["line 1: not UTF-8"]),
        ("[" * 100_000 + "]" * 100_000, ["line 1: is nested too deeply"]),
        ("- &a [*a]\n", ["line 1: a topic is a mapping"]),
        ("x: [a b\x00]\n", ["not valid YAML"]),
        ("".join(f"t{n}: ['']\n" for n in range(30)), ["line 10: an empty keyword", "20 more lines have faults"]),
    ],
)  # fmt: skip
def test_a_fault_is_a_sentence_with_its_line(content: str | bytes, sentences: list[str], tmp_path: Path) -> None:
    file = written(tmp_path, content)
    with pytest.raises(TopicsError) as caught:
        read_topics(file)
    for sentence in sentences:
        assert sentence in str(caught.value)
    assert all(line.startswith(str(file)) for line in str(caught.value).splitlines())


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(TopicsError, match=f"cannot be read: {reason}"):
            read_topics(path)


def test_words_of_two_topics_and_too_many_topics_are_noted(tmp_path: Path) -> None:
    read = read_topics(written(tmp_path, "oil: [Brent, crude]\ngas: [BRENT]\nfuel: [oil, Oil]\n"))
    assert len(read.notes) == 2
    assert any("'brent' is a word of 'oil' (line 1), 'gas' (line 2)" in note for note in read.notes)
    many = "".join(f"topic {n}: [w{n}]\n" for n in range(201))
    [note] = read_topics(written(tmp_path, many)).notes
    assert note.startswith("There are 201 topics, and metrics for the first 200")


def test_100_000_lines_are_read_and_more_words_than_that_are_refused(tmp_path: Path) -> None:
    started = time.process_time()
    lines = "big:\n" + "".join(f"- word{n} of\n" for n in range(100_000))
    matcher = Matcher(read_topics(written(tmp_path, lines)))
    assert matcher.topics("a word99999 of mine") == ["big"]
    assert time.process_time() - started < 20
    anchored = f"a: &a [{', '.join(f'w{n}' for n in range(1000))}]\n" + "".join(f"b{n}: *a\n" for n in range(201))
    with pytest.raises(TopicsError, match=f"more than {MAX_WORDS:,} words"):
        read_topics(written(tmp_path, anchored))


def test_the_example_is_one() -> None:
    read = read_topics(ROOT / "deploy" / "topics.example.yaml")
    assert len(read.names) >= 25
    assert not read.notes
    matcher = Matcher(read)
    assert matcher.topics("Airlines sink as Brent tops $90") == ["airlines", "oil"]
    assert matcher.topics("美联储宣布降息，人民币走强") == ["central banks", "yuan"]
