"""What a task adds for a desk that answers: entities of the text, and the label's answer with its slots filled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from models.entities import Registry, engine_of, package_registry, read_registry
from models.tasks.answers import (
    MAX_SLOTS,
    Answers,
    Default,
    Language,
    SlotName,
    SlotValue,
    no_slot,
    package_answers,
    read_answers,
)
from models.tasks.base import Prediction, TaskOptions, TextRequest


class AnsweringRequest(TextRequest):
    """A text or texts, and what is known about who wrote them; `slots` and `language` hold for all of `texts`."""

    slots: dict[SlotName, SlotValue] = Field(
        {},
        max_length=MAX_SLOTS,
        examples=[{"customer_name": "Ann"}],
        description="values for the slots of answers, by name; they win over what is found in the text",
    )
    language: Language | None = Field(
        None,
        examples=["en"],
        description="of the answer, as BCP 47 writes it; entries of the knowledge base in it are offered before others",
    )


def _registry(value: Any) -> Any:
    return value if _is_read(value, Registry) else read_registry(_file(value, "entities"))


def _answers(value: Any) -> Any:
    return value if _is_read(value, Answers) else read_answers(_file(value, "answers"))


def _is_read(value: Any, kind: type) -> bool:
    """Whether it needs no file: None for the package's, `off`, which YAML reads as false, or what was read."""
    return value is None or value is False or isinstance(value, kind)


def _file(value: Any, what: str) -> Path:
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError(f"must be the name of a file of {what}")
    return Path(value).expanduser()


class AnsweringOptions(TaskOptions):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    entities: Annotated[Registry | Literal[False] | None, BeforeValidator(_registry)] = Field(
        None,
        description="a file of types and words beside the package's, or what was read from it; off: none are found",
    )
    answers: Annotated[Answers | Literal[False] | None, BeforeValidator(_answers)] = Field(
        None, description="a file of answers in place of the package's, or what was read from it; off: none are given"
    )
    defaults: dict[SlotName, Default] = Field(
        {}, max_length=1000, description="values of slots that neither the request nor its text gives"
    )

    @property
    def registry(self) -> Registry | None:
        """The types that are found; None for none."""
        return None if self.entities is False else self.entities or package_registry()

    @model_validator(mode="after")
    def _slots_are_known(self) -> Self:
        for name, value in self.defaults.items():
            try:
                no_slot(value)
            except ValueError as error:
                raise ValueError(f"defaults.{name}: {error}") from None
        if self.answers:
            known = {*(self.registry.answered if self.registry else ()), *self.defaults}
            if faults := list(self.answers.unknown_slots(known)):
                raise ValueError("; ".join(faults[:10]))
        return self

    @property
    def notes(self) -> tuple[str, ...]:
        return self.registry.notes if self.registry else ()


class Answering:
    """Adds entities and answers to predictions, as the options say. Thread-safe."""

    def __init__(self, options: AnsweringOptions):
        templates = options.answers
        self._answers = None if templates is False else (templates or package_answers()).with_defaults(options.defaults)
        self._engine = engine_of(options.registry) if options.registry else None

    def __contains__(self, label: object) -> bool:
        """Whether the label has an answer."""
        return self._answers is not None and label in self._answers

    def add_to(self, prediction: Prediction, text: str, request: AnsweringRequest) -> None:
        """Set `entities`, `answer` and `missing`, each only where there is one.

        What a person should answer has no answer, unless the customer asks for a person: then it says so.
        """
        found = self._engine.entities(text) if self._engine else []
        if found:
            prediction["entities"] = [
                {"type": one.type, "value": one.value, "start": one.start, "end": one.end} for one in found
            ]
        label = prediction["label"]
        handed_off = prediction["handoff"] and prediction.get("reason") != "asked_for_person"
        if handed_off or self._answers is None or label not in self._answers:
            return
        # The first of several of one type; what the request gives wins.
        given = {**{one.type: one.value for one in reversed(found)}, **request.slots} if found else request.slots
        answer = self._answers.answer(label, text, given, request.language)
        prediction["answer"] = answer.text
        if answer.missing:
            prediction["missing"] = list(answer.missing)
