"""The served report: who gets it, what is kept, and how much may be sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="fastapi is not installed")
from starlette.testclient import TestClient

from citepipe.cli import main
from citepipe.errors import InputError
from citepipe.report import serve

LABEL: dict[str, Any] = {
    **{"dataset": "asqa", "id": "mill", "question": "Who?", "system": "long", "seed": 0},
    **{
        "statement": 1,
        "text": "It is \u202eold.",
        "cited": [2],
        "verdicts": {"a": None},
        "verifier": "a",
    },
    **{"label": "agree", "comment": ""},
}


def served(folder: Path, token: str | None = None, answer: Any = None) -> TestClient:
    data = serve.write_data({"systems": ["\ud83d"], "questions": []}, folder)
    app = serve.app("<p>page", data, serve.Labels(folder / "labels.jsonl"), token, answer)
    return TestClient(app, base_url="http://127.0.0.1:8765")


def test_verdicts_are_kept_in_their_file_and_nothing_else_is_written(tmp_path: Path):
    client = served(tmp_path)
    assert client.get("/").text == "<p>page"
    # Half of a pair of characters becomes a question mark.
    assert client.get("/data").json() == {"systems": ["?"], "questions": []}
    disagreed = LABEL | {"label": "disagree"}
    for label in (LABEL, LABEL | {"statement": 2}, disagreed):
        assert client.post("/labels", json=label).json() == {"kept": True}
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert list(map(json.loads, lines)) == [disagreed, LABEL | {"statement": 2}]
    # Another day it goes on from there.
    assert served(tmp_path).get("/labels").text.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json.gz", "labels.jsonl"]
    deep = json.loads("[" * 300 + "]" * 300)
    wrong = (LABEL | {"label": "perhaps"}, LABEL | {"comment": "x" * 10_001}, [], {})
    # What could not be read again does not take the others with it.
    for own in (*wrong, LABEL | {"more": deep}):
        assert client.post("/labels", json=own).status_code == 422
    assert client.post("/labels", json=disagreed).json() == {"kept": True}
    assert client.get("/labels").text.count("\n") == 1
    (tmp_path / "labels.jsonl").write_text('{"label": 3}\n')
    with pytest.raises(InputError, match=r"labels\.jsonl, verdict 1, field dataset: missing"):
        serve.Labels(tmp_path / "labels.jsonl")


def test_other_pages_and_large_bodies_are_refused(tmp_path: Path):
    client = served(tmp_path)
    # A name of somebody else's that leads here, and a form of somebody else's page.
    assert client.get("/", headers={"host": "example.org"}).status_code == 400
    cross = {"sec-fetch-site": "cross-site"}
    assert client.post("/labels", json=LABEL, headers=cross).status_code == 403
    assert client.post("/labels", content=b"x" * (serve.LONGEST + 1)).status_code == 413
    assert client.post("/labels", content=iter([b"{}"])).status_code == 413
    assert not (tmp_path / "labels.jsonl").exists()


def test_a_token_is_asked_for_at_other_addresses(tmp_path: Path):
    client = served(tmp_path, "secret")
    host = {"host": "example.org"}
    for path in ("/", "/data", "/labels", "/?token=other"):
        assert client.get(path, headers=host).status_code == 401
    assert client.post("/labels", json=LABEL).status_code == 401
    assert client.get("/?token=secret").text == "<p>page"
    assert client.post("/labels", json=LABEL).status_code == 200


def test_one_question_is_answered_at_a_time(tmp_path: Path):
    def answer(question: str) -> str:
        if question == "both":
            return client.get("/ask?question=again").text
        raise InputError(f"{question}: no")

    client = served(tmp_path, answer=answer)
    assert (
        client.get("/ask?question=both").text == "another question is being answered: ask again\n"
    )
    found = client.get("/ask", params={"question": "<b>"})
    assert (found.status_code, found.text) == (400, "<b>: no\n")
    assert found.headers["content-type"].startswith("text/plain")
    for question, status in (("", 422), ("x" * 1001, 422)):
        assert client.get("/ask", params={"question": question}).status_code == status
    cross = {"sec-fetch-site": "cross-site"}
    assert client.get("/ask?question=a", headers=cross).status_code == 403
    assert served(tmp_path).get("/ask?question=a").status_code == 404


def test_what_cannot_be_served_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["view", str(tmp_path)]) == 1
    line = f"citepipe: {tmp_path}: expected a folder of results, it has no scores\n"
    assert capsys.readouterr().err == line
    assert main(["view", str(tmp_path), "--docs", str(tmp_path / "nowhere")]) == 1
    assert capsys.readouterr().err.startswith(f"citepipe: {tmp_path}/nowhere: expected a folder, ")
