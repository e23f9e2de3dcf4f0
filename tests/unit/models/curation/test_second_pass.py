"""Presidio as a second pass: only what it adds is replaced, and what is not installed is said."""

from __future__ import annotations

import importlib.util

import pytest
from pydantic import ValidationError

from models.curation.second_pass import SecondPassError, redaction
from models.curation.types import Rules
from models.feedback.pii import redact

MODEL = "en_core_web_sm"


def installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def test_without_it_the_engine_redacts_alone() -> None:
    assert redaction(Rules()) is redact


def test_no_other_is_known() -> None:
    with pytest.raises(ValidationError):
        Rules.model_validate({"second_pass": "comprehend"})


@pytest.mark.skipif(installed("presidio_analyzer"), reason="presidio is installed")
def test_that_it_is_not_installed_is_said() -> None:
    with pytest.raises(SecondPassError, match=r"presidio is not installed .* pip install 'flywheel-serve\[pii\]'"):
        redaction(Rules(second_pass="presidio"))


@pytest.mark.skipif(not installed("presidio_analyzer"), reason="presidio is not installed")
def test_that_its_language_model_is_not_installed_is_said() -> None:
    with pytest.raises(SecondPassError, match="there is no model 'xx_none' of spaCy"):
        redaction(Rules(second_pass="presidio", second_pass_model="xx_none"))


@pytest.mark.skipif(not installed(MODEL), reason=f"{MODEL} is not installed")
def test_it_replaces_names_within_a_sentence() -> None:
    redacted = redaction(Rules(second_pass="presidio"))
    text = "the parcel for Maria Fernandez came to ann@example.com on Monday"
    assert redacted(text) == "the parcel for [name] came to [email] on Monday"
    assert redacted(redacted(text)) == redacted(text)
