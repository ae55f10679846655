"""One experiment run to its table, with tiny models and data in the place of those it names.

It has what the default lacks: own documents that are searched, a teacher behind an endpoint and
answers left out by their reward. The others are shown by dry runs (test_configuration.py).
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

import yaml

from tests.generate.loopback_server import ChatServer, chat

from .project import ROOT, read_config, snakemake
from .tiny import rows, write_project

SECTIONS = ("sft", "rs_sft", "rl", "segment_search", "predict")


def test_own_documents(tmp_path: Path) -> None:
    write_project(tmp_path)
    small = read_config(tmp_path)
    config = yaml.safe_load((ROOT / "experiments/own-documents.yaml").read_text())
    config |= {name: small[name] for name in (*SECTIONS, "model", "score", "verifiers")}
    config |= {"prompt": small["prompt"], "tracking": {"wandb": "off"}}
    config["data"] |= {"dev_size": {"eli5": 3}, "test_size": {"eli5": 4}}
    # The verifier is a random one.
    config["teacher"]["min_reward"] = None
    texts = tmp_path / "own" / "texts"
    texts.mkdir(parents=True)
    made = rows("eli5", 0, 24)
    for row in made:
        for doc in row["docs"]:
            (texts / f"{doc['title'].replace(' ', '-')}.txt").write_text(doc["text"])
    questions = "\n".join(json.dumps({"question": row["question"]}) for row in made)
    (tmp_path / "own" / "questions.jsonl").write_text(questions)
    with ChatServer() as server:
        config["teacher"]["endpoint"]["url"] = server.url
        server.answer = lambda _: chat("A person was born there [1]. So was another [2].")
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        table, report = (f"{config['results']}/{name}" for name in ("table.csv", "report.html"))
        done = snakemake(
            tmp_path, "--configfile", "own.yaml", "--", table, report, OPENAI_API_KEY="sk-tests"
        )
        assert done.returncode == 0, done.stdout[-3000:]
        assert len(server.requests) == 20
        assert server.requests[0][1]["authorization"] == "Bearer sk-tests"
    with (tmp_path / table).open() as stream:
        found = {row["system"]: row for row in csv.DictReader(stream)}
    assert set(found) == {"plain", "dist", "fg_rs", "fg_rl"}
    assert float(found["dist"]["eli5_citation_recall"]) >= 0
    assert "report: 16 answers of 4 systems" in done.stdout
    assert "data:image/svg+xml;base64," in (tmp_path / report).read_text()
    results = tmp_path / config["results"]
    assert not (results / "weights").exists(), "the base answers as it is"
    account = json.loads((results / "teacher" / "account.json").read_text())
    assert account["answers"] == 20
    train = json.loads((results / "data" / "train.json").read_text())
    assert len(train) == 17
    assert all(row["docs"] for row in train)
    written = [path.read_bytes() for path in results.rglob("*") if path.is_file()]
    assert not any(b"sk-tests" in content for content in written)
