"""The report on a training file: what was found in it, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One kind of fault or oddity. An error refuses the file, a warning needs a look, a note is only told."""

    kind: str
    """one of a fixed set, for programs"""
    severity: Severity
    count: int
    """of rows, texts or labels, as the sentence says"""
    sentence: str
    action: str
    """what to do, as a sentence"""
    examples: tuple[str, ...] = ()
    """some of them, each with its line number where it has one"""

    @property
    def text(self) -> str:
        """For a console: sentence, examples and action on one line."""
        examples = f" For instance: {'; '.join(self.examples)}." if self.examples else ""
        return f"{self.sentence}{examples} {self.action}".rstrip()


@dataclass(frozen=True, slots=True)
class CorpusReport:
    """Counts of a training file and all its findings, errors first."""

    name: str
    train_rows: int
    holdout_rows: int
    labels: int
    """of a classifier's file; of a ranker's, its items"""
    findings: tuple[Finding, ...] = ()
    kind: Literal["labels", "items"] = "labels"
    """what `labels` counts"""

    def of(self, severity: Severity) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == severity]

    def with_findings(self, more: Sequence[Finding]) -> CorpusReport:
        return replace(self, findings=(*self.findings, *more))

    @property
    def summary(self) -> str:
        """Counts of rows and labels in one line."""
        return (
            f"{self.name}: {self.train_rows:,} training rows, {self.holdout_rows:,} in the holdout, "
            f"{self.labels:,} {self.kind}"
        )

    def lines(self) -> list[str]:
        """The report for a console: a line of counts, and one for each finding."""
        return [self.summary, *(f"{finding.severity}: {finding.text}" for finding in self.findings)]

    def to_dict(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    def markdown(self) -> str:
        """The report as a Markdown page."""
        lines = [f"# {_escaped(self.summary)}", ""]
        if not self.findings:
            return "\n".join([*lines, "Nothing was found.", ""])
        for finding in self.findings:
            lines += [f"## {finding.severity}: {finding.kind.replace('_', ' ')} ({finding.count:,})", ""]
            lines += [_escaped(f"{finding.sentence} {finding.action}"), ""]
            lines += [f"- {_escaped(example)}" for example in finding.examples]
            lines += [""] if finding.examples else []
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """Write `corpus.md` and `corpus.json` into `folder`. They have texts of the file, as the corpus itself has."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "corpus.md").write_bytes(self.markdown().encode("utf-8", "replace"))
        (folder / "corpus.json").write_bytes(orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2))


def _escaped(text: str) -> str:
    return "".join(f"\\{character}" if character in r"\`*_{}[]<>#|" else character for character in text)
