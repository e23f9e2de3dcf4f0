"""Words of topics are found as a reader would find them."""

from __future__ import annotations

import pickle

import pytest

from models.opinion.coverage import coverage_of
from models.opinion.topics import MAX_CHARACTERS, OTHER, Matcher, Topic, Topics, Word, matcher_of


def topics(**lists: list[str]) -> Topics:
    made = []
    for name, words in lists.items():
        found = [
            Word(name.replace("_", " "), 1, "name"),
            *(Word(word, line, "keyword") for line, word in enumerate(words)),
        ]
        made.append(Topic(name, tuple(found)))
    return Topics(tuple(made))


def found(text: str, **lists: list[str]) -> list[str]:
    return Matcher(topics(**lists)).topics(text)


@pytest.mark.parametrize(
    ("word", "text", "stands"),
    [
        ("oil", "Oil falls", True),
        ("OIL", "crude oil", True),
        ("oil", "(OIL)", True),
        ("oil", "oil-rich", True),
        ("oil", "#oil", True),
        ("oil", "soil", False),
        ("oil", "oily", False),
        ("oil", "ｏｉｌ", True),  # full width
        ("airline", "Airlines cut", True),
        ("airline", "the airline's profit", True),
        ("airline", "the airlines’ profits", True),
        ("carmaker", "Carmaker’s", True),
        ("mcdonald's", "McDonald’s rises", True),
        ("tax", "Taxes rise", True),
        ("tax", "taxs", False),
        ("potato", "potatoes", True),
        ("currency", "Currencies slip", True),
        ("buy", "buys", True),
        ("buy", "buies", False),
        ("us", "it uses", False),
        ("it", "its", False),
        ("ai", "said", False),
        ("interest rate", "interest \n rates", True),
        ("interest rate", "interested rate", False),
        ("S&P 500", "the s&p 500 fell", True),
        ("S&P 500", "the s&p 5000", False),
        ("Q4", "Q4: up", True),
        ("Q4", "Q40", False),
        ("$AAPL", "long $AAPL!", True),
        ("$AAPL", "AAPL", False),
        ("C++", "C++ and", True),
        ("a.b", "axb", False),
        ("a.b", "a.b", True),
        ("[x]*", "xxx", False),
        ("(oil|gas)", "oil", False),
        ("(oil|gas)", "(oil|gas)", True),
        (".*", "anything", False),
        ("émile", "Émile’s", True),
        ("emile", "Émile", False),
        ("straße", "STRASSE", True),
        ("нефть", "Нефть дорожает", True),
        ("нефт", "Нефть дорожает", False),
        ("भारत", "भारत में", True),
        ("भारत", "भारती", False),  # a vowel sign joins the word
        ("美联储", "美联储宣布降息", True),
        ("降息", "美联储宣布降息。", True),
        ("トヨタ", "トヨタ自動車の株価", True),
        ("삼성전자", "삼성전자는 올랐다", True),
        ("ธนาคาร", "ธนาคารกลาง", True),
        ("iphone", "新iPhone手机", True),
        ("iphone", "新iPhones手机", True),
        ("iphone", "新iPhoneX手机", False),
        ("airline", "✈️Airlines cut", True),  # with the mark that makes an emoji of the sign
        ("oil", "1️⃣ oil", True),
        ("same-store sales", "Same‑store sales", True),  # U+2011, which wraps no line
        ("same-store sales", "same‐store sales", True),  # U+2010
        ("L'Oréal", "L´Oréal, L‘Oréal", True),
        ("McDonald", "McDonaldʼs", True),  # U+02BC
        ("airline", "air\u00adlines", True),
        ("AT&T", "AT&T's", True),
        ("AT&T", "AT&TX", False),
        ("U.S.", "U.S.-listed", True),
        ("U.S.", "us", False),
        ("café", "cafe\u0301", True),
        ("İş Bankası", "I\u0307ş Bankası", True),
    ],
)
def test_a_word_stands_in_a_text(word: str, text: str, stands: bool) -> None:
    assert found(text, named=[word]) == (["named"] if stands else [])


def test_the_topics_of_a_text_are_in_the_order_of_their_words() -> None:
    lists = {"gold": ["bullion"], "oil": ["crude"], "central_banks": ["Fed"]}
    assert found("Fed lifts crude, gold; bullion and oil", **lists) == ["central_banks", "oil", "gold"]
    assert found("Central banks", **lists) == ["central_banks"]
    assert found("nothing", **lists) == []


def test_a_word_of_two_topics_gives_both_and_a_longer_word_hides_those_inside() -> None:
    lists = {
        "banks": ["bank"],
        "central_banks": ["central bank", "Bank of England"],
        "uk": ["England", "sterling", "bank of england"],
    }
    assert found("The central bank waits", **lists) == ["central_banks"]
    assert found("Bank of England waits", **lists) == ["central_banks", "uk"]
    assert found("The central bank warns a bank in England", **lists) == ["central_banks", "banks", "uk"]
    assert found("中央银行", 银行=["银行"], 央行=["中央银行"]) == ["央行"]
    # Words that share an end are both there.
    assert found("rate cut off", one=["rate cut"], two=["cut off"]) == ["one", "two"]


def test_a_long_text_is_searched_to_a_bound() -> None:
    assert found("x" * (MAX_CHARACTERS - 4) + " oil", oil=[]) == ["oil"]
    assert found("x" * MAX_CHARACTERS + " oil", oil=[]) == []


def test_given_names_and_aliases_are_one_topic() -> None:
    words = (Word("US dollar", 1, "name"), Word("Greenback", 1, "alias"), Word("DXY", 1, "keyword"))
    euro = (Word("euro", 2, "name"), Word("us dollar", 2, "alias"))
    known = Topics((Topic("US dollar", words), Topic("euro", euro)))
    assert [known.canonical(name) for name in ("us  DOLLAR", "greenback", "EURO")] == ["US dollar", "US dollar", "euro"]
    assert known.canonical("dxy") == "dxy", "a keyword is no name"
    assert known.canonical("my own") == "my own"


def test_other_is_no_alias() -> None:
    known = Topics((Topic("x", (Word("x", 1, "name"), Word("other", 1, "alias"))),))
    assert [known.canonical(name) for name in ("other", "Other", "ＯＴＨＥＲ")] == [OTHER] * 3


def test_topics_go_to_other_processes_and_a_process_has_one_matcher() -> None:
    one = topics(oil=["crude"])
    assert one.canonical("OIL") == "oil"
    other = pickle.loads(pickle.dumps(one))
    assert other == one
    assert matcher_of(other) is matcher_of(one)


def test_what_words_catch() -> None:
    known = topics(oil=["crude", "never"], gold=["bullion"])
    result = coverage_of(Matcher(known), ["Crude oil", "crude and gold", "gold", "nothing", *["oil"] * 9])
    assert result.texts == 13
    assert result.topics == {"oil": 11, "gold": 2, OTHER: 1}
    assert result.pairs == {("gold", "oil"): 1}
    assert {(name, word.text): count for (name, word), count in result.words.items()} == {
        ("oil", "crude"): 2, ("oil", "oil"): 10, ("gold", "gold"): 2
    }  # fmt: skip
    assert result.examples["oil"] == ["Crude oil", "crude and gold", "oil"]
    assert result.examples[OTHER] == ["nothing"]
