"""Labelled files that tests write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path


def write(folder: Path, content: str | bytes, name: str = "data.csv") -> Path:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def as_csv(rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def as_jsonl(rows: Iterable[tuple[str, ...]], header: tuple[str, ...] = ("text", "label")) -> str:
    return "".join(json.dumps(dict(zip(header, row, strict=True))) + "\n" for row in rows)
