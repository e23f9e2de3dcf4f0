"""`flywheel knowledge` with the real endpoints behind HTTP: files good and bad, and what is in the store afterwards."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from starlette.applications import Starlette

from models.data.records import DatasetError
from models.feedback.store import Store
from serve.api.knowledge import KnowledgeApi
from serve.cli.knowledge_file import read_entries, write_entries
from serve.cli.settings import actor
from serve.config import Config, KnowledgeConfig
from tests.helpers.command import Command, free_port
from tests.helpers.tiny_encoder import compute_vectors, tiny_encoder

ROWS = [
    {
        "id": "",
        "question": "how do i return an item",
        "answer": "Within 30 days.",
        "language": "en",
        "tags": "returns; post",
    },
    {
        "id": "pw",
        "question": "forgot my password",
        "answer": 'Click "reset",\nthen <b>wait</b>.',
        "language": "",
        "tags": "",
    },
    {"id": "=1+1", "question": "=cmd", "answer": "=SUM(A1)", "language": "", "tags": ""},
]


def write(file: Path, rows: list[dict[str, str]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, ROWS[0])
        table.writeheader()
        table.writerows(rows)
    return file


def refused(file: Path, content: str) -> str:
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError) as error:
        read_entries(file)
    return str(error.value)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    read = read_entries(write(tmp_path / "faq.csv", ROWS[:2]))
    assert read.notes == []
    assert [(entry.id, entry.language, entry.tags) for entry in read.entries] == [
        (None, "en", ["returns", "post"]), ("pw", None, []),
    ]  # fmt: skip
    stored = [entry.model_dump() | {"id": entry.key} for entry in read.entries]
    for name in ("again.csv", "again.jsonl"):
        assert write_entries(tmp_path / name, iter(stored)) == 2
        again = [entry.model_dump() for entry in read_entries(tmp_path / name).entries]
        assert again == stored


@pytest.mark.parametrize("tags", [["a, b"], ["x;y", "z"], ["|"], ["[1]"], ["[", "]"], [" a "], ["ü"]])
def test_tags_survive_a_file_whatever_is_in_them(tags: list[str], tmp_path: Path) -> None:
    stored = [{"id": "pw", "question": "Lost password?", "answer": "Ask.", "language": None, "tags": tags}]
    for name in ("faq.csv", "faq.jsonl"):
        write_entries(tmp_path / name, iter(stored))
        assert [entry.tags for entry in read_entries(tmp_path / name).entries] == [tags]


def test_faults_are_told_with_their_lines_and_all_at_once(tmp_path: Path) -> None:
    long = "a" * 2**20
    said = refused(
        tmp_path / "faq.csv",
        "question,answer,language,id\n"
        "one?,,,\n"
        '"<p>two?</p>","<a href=""x"">html is text</a>",,\n'
        f"three?,{long},,\n"
        "four?,yes,klingon language,\n"
        "five?,yes,,../x\n"
        "Six?,yes,,\n"
        "six?,no,,\n",
    )
    assert "5 cannot be stored" in said
    for line, reason in ((2, "is empty"), (4, "at most 20000"), (5, "language tag"), (6, "an id"), (8, "of line 7")):
        assert f"line {line}: " in said
        assert reason in said.split(f"line {line}: ")[1].splitlines()[0]
    assert "line 3" not in said
    assert len(said) < 2_000


def test_a_wrong_header_is_told(tmp_path: Path) -> None:
    assert "no column 'question'; it has: Frage, Antwort" in refused(tmp_path / "faq.csv", "Frage,Antwort\na,b\n")
    assert "no column 'answer'" in refused(tmp_path / "faq.csv", "question\na\n")
    assert "there are no entries" in refused(tmp_path / "faq.csv", "question,answer\n")
    assert "line 1: there is no 'answer'" in refused(tmp_path / "faq.jsonl", '{"question": "a", "reply": "b"}\n')
    assert "one a line" in refused(tmp_path / "faq.jsonl", "[1]\n")


def test_repeated_lines_and_other_columns_are_notes(tmp_path: Path) -> None:
    (tmp_path / "faq.csv").write_text("Question;Answer;Author\na;b;me\na;b;you\n", encoding="utf-8-sig")
    read = read_entries(tmp_path / "faq.csv")
    assert [entry.question for entry in read.entries] == ["a"]
    assert len(read.notes) == 2
    assert "author" in read.notes[1]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Store]]:
    """The endpoints of a knowledge base, and its controller's work every tenth of a second."""
    home = tmp_path / "home"
    tiny_encoder(home)
    store = Store(f"sqlite:///{home / 'feedback.db'}")
    app = Starlette(routes=KnowledgeApi(Config(home=home, knowledge=KnowledgeConfig(max_entries=1200)), store).routes())
    server = uvicorn.Server(uvicorn.Config(app, port=free_port(), log_level="critical", lifespan="off"))
    threads = [threading.Thread(target=server.run)]

    def control() -> None:
        while not server.should_exit:
            compute_vectors(home, store)
            time.sleep(0.1)

    threads.append(threading.Thread(target=control))
    for thread in threads:
        thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.config.port}", store
    server.should_exit = True
    for thread in threads:
        thread.join()
    store.close()


def test_import_list_export_and_delete(run: Command, served: tuple[str, Store], tmp_path: Path) -> None:
    url, store = served
    file = write(tmp_path / "faq.csv", ROWS[:2])
    done = run("knowledge", "import", str(file), "--url", url)
    assert (done.returncode, "2 added, 0 changed, 0 as they were" in done.stdout) == (0, True), done
    assert store.knowledge.state().waiting == 0
    changed = write(file, [ROWS[0], ROWS[1] | {"answer": "new"}, ROWS[1] | {"id": "new", "question": "where is it"}])
    assert "1 added, 1 changed, 1 as they were" in run("knowledge", "import", str(changed), "--url", url).stdout
    listed = run("knowledge", "list", "--url", url)
    assert "3 entries" in listed.stdout
    assert "returns" in listed.stdout
    exported = run("knowledge", "export", str(tmp_path / "out.jsonl"), "--url", url)
    assert exported.returncode == 0, exported
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["question"] for line in lines} == {"how do i return an item", "forgot my password", "where is it"}
    replaced = run("knowledge", "import", str(write(file, [ROWS[1]])), "--replace", "--url", url)
    assert "0 added, 1 changed, 0 as they were, 2 deleted" in replaced.stdout
    unknown = run("knowledge", "delete", "pw", "nothing", "--url", url)
    assert (unknown.returncode, "1 deleted" in unknown.stdout) == (1, True)
    assert "0 entries" in run("knowledge", "list", "--url", url).stdout
    assert run("knowledge", "delete", "--url", url).returncode == 2
    audited = store.audit.entries("intent")
    assert [(entry.action, entry.detail) for entry in audited[:3]] == [
        ("knowledge delete", {"deleted": 1}),
        ("knowledge delete", {"deleted": 2}),
        ("knowledge put", {"added": 0, "changed": 1}),
    ]
    assert {entry.actor for entry in audited} == {actor()}


def test_a_large_file_is_sent_in_parts_and_one_that_is_too_large_is_refused(
    run: Command, served: tuple[str, Store], tmp_path: Path
) -> None:
    url, store = served
    rows = [{"id": f"e{i}", "question": f"refund order {i}", "answer": "a" * 500} for i in range(1200)]
    done = run("knowledge", "import", str(write(tmp_path / "faq.csv", rows)), "--url", url)
    assert "1,200 added" in done.stdout, done
    assert (store.knowledge.state().entries, store.knowledge.state().waiting) == (1200, 0)
    more = run("knowledge", "import", str(write(tmp_path / "more.csv", [ROWS[0]])), "--url", url)
    assert more.returncode == 1
    assert "there may be 1,200" in more.stderr
    larger = run("knowledge", "import", str(write(tmp_path / "larger.csv", [*rows, ROWS[0]])), "--url", url)
    assert "the file has 1,201 entries" in larger.stderr


def test_a_file_with_a_fault_changes_nothing(run: Command, served: tuple[str, Store], tmp_path: Path) -> None:
    url, store = served
    done = run("knowledge", "import", str(write(tmp_path / "faq.csv", ROWS)), "--replace", "--url", url)
    assert done.returncode == 1
    assert "line 5" in done.stderr or "line 4" in done.stderr
    assert store.knowledge.state().entries == 0


def test_no_server(run: Command, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    for arguments in (("list",), ("import", str(write(tmp_path / "faq.csv", ROWS[:1]))), ("delete", "--all")):
        done = run("knowledge", *arguments, "--url", url)
        assert done.returncode == 1
        assert "No server answers" in done.stderr
    (kept := tmp_path / "kept.csv").write_text("question,answer\na,b\n")
    assert run("knowledge", "export", str(kept), "--url", url).returncode == 1
    assert kept.read_text() == "question,answer\na,b\n"
    assert sorted(file.name for file in tmp_path.glob(".kept*")) == []


def test_help_has_examples(run: Command) -> None:
    for command in ("import", "list", "delete", "export"):
        assert f"flywheel knowledge {command}" in run("knowledge", command, "--help").stdout
