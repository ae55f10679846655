"""Every experiment runs to its table, with tiny models and data in the place of those it names."""

from __future__ import annotations

import csv
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from citepipe.config import load_config
from citepipe.inputs import localise
from citepipe.options import SourcesOptions
from citepipe.sources import cache_path
from tests.generate.loopback_server import ChatServer, chat

from .command import snakemake, stale
from .tiny import ROOT, rows, write_project

SHARED = ROOT.parent / "shared" / "data"
SECTIONS = ("sft", "rs_sft", "rl", "grpo", "rloo", "best_of_n", "segment_search", "predict", "dpo")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tiny models and rows, its experiments beside it."""
    project = tmp_path_factory.mktemp("experiments") / "project"
    write_project(project)
    shutil.copytree(ROOT / "experiments", project / "experiments")
    return project


def shrunk(config: dict[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """An experiment with all that is large in it made small; what it is stays."""
    sections = {name: small[name] for name in SECTIONS if name in config and name in small}
    others = {"grpo": small["rl"], "rloo": small["rl"], "predict": small["predict"]}
    model = {"base": "models/base", "dtype": "float32", "adapter": {"r": 2, "dropout": 0.0}}
    verifiers = dict.fromkeys(config["verifiers"]["report"], "models/verifier")
    return {
        **config,
        **sections,
        **{name: others[name] for name in others if name in config or name == "predict"},
        "model": model,
        "verifiers": {"train": "models/verifier", "report": verifiers},
        "prompt": {**config.get("prompt", {}), **small["prompt"]},
        "score": {"resamples": 10},
        "sources": {"cache": "cache", "offline": True},
        "tracking": {"wandb": "off"},
    }


def put_by_hand(project: Path, config: dict[str, Any], files: Mapping[str, Path]) -> None:
    """Put what the experiment would fetch into the cache, as somebody without a network does."""
    options = SourcesOptions(cache=str(project / "cache"))
    _, sources = localise(load_config(config))
    for source in sources.values():
        for member in source.members:
            target = cache_path(f"{source.address}#{member}", options)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(files[member], target)


def run(
    project: Path, name: str, config: dict[str, Any], **environment: str
) -> dict[str, dict[str, str]]:
    """The rows of the table, by system."""
    (project / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    table = f"{config['results']}/table.csv"
    done = snakemake(project, "--configfile", f"{name}.yaml", "--", table, **environment)
    assert done.returncode == 0, done.stdout[-3000:]
    with (project / table).open() as stream:
        return {row["system"]: row for row in csv.DictReader(stream)}


def experiment(project: Path, name: str) -> dict[str, Any]:
    """The configuration of an experiment, made small."""
    config = yaml.safe_load((project / "experiments" / f"{name}.yaml").read_text())
    return shrunk(config, yaml.safe_load((project / "config.yaml").read_text()))


def data_files(project: Path) -> dict[str, Path]:
    """The rows under the names of the authors' files."""
    names = {f"combined_{split}.json": f"{split}.json" for split in ("train", "dev", "test")}
    names["expertqa_test.json"] = "expertqa.json"
    return {name: project / "data" / own for name, own in names.items()}


@pytest.mark.parametrize("name", ["llama2-7b", "chat-24gb"])
def test_training_on_the_authors_data(name: str, tiny: Path) -> None:
    config = experiment(tiny, name)
    put_by_hand(tiny, config, data_files(tiny))
    # One way to sample and one to learn each; the others are the same stages again.
    kept = ("dist", "fg_rs", "fg_rs_rl") if name == "llama2-7b" else ("dist", "h_rs", "h_rl")
    config["systems"] = {key: config["systems"][key] for key in kept}
    table = run(tiny, name, config)
    assert set(table) == set(kept)
    first, second = config["verifiers"]["report"]
    assert f"asqa_citation_f1_{second}" in table["dist"]
    assert float(table["dist"]["asqa_citation_recall"]) >= 0
    assert first not in "".join(table["dist"])


def test_the_released_adapters(tiny: Path) -> None:
    import peft
    import torch
    import transformers

    config = experiment(tiny, "released")
    wanted = {system["adapter"].partition("#")[2] for system in config["systems"].values()}
    files = data_files(tiny)
    for number, name in enumerate(sorted(wanted)):
        torch.manual_seed(number)
        model = transformers.AutoModelForCausalLM.from_pretrained(tiny / "models" / "base")
        adapted = peft.get_peft_model(
            model, peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
        )
        # Half of them pickled and deep below, as PPO's are.
        folder = tiny / "zips" / name.removesuffix(".zip")
        inner = folder / "best_peft" / "policy_adapter" if number % 2 else folder
        adapted.save_pretrained(str(inner))
        if number % 2:
            from safetensors.torch import load_file

            weights = inner / "adapter_model.safetensors"
            torch.save(load_file(weights), inner / "adapter_model.bin")
            weights.unlink()
        files[name] = folder.with_suffix(".zip")
        with zipfile.ZipFile(files[name], "w") as archive:
            for path in folder.rglob("*"):
                if path.is_file():
                    archive.write(path, path.relative_to(folder.parent))
    put_by_hand(tiny, config, files)
    # Two are enough, one of each layout, and training that goes on from one of them.
    systems = {key: config["systems"][key] for key in ("dist", "fg_rl")}
    systems["more"] = {"train": "sft", "start": "fg_rl", "data": "teacher"}
    config |= {"systems": systems, "sft": yaml.safe_load((tiny / "config.yaml").read_text())["sft"]}
    table = run(tiny, "released", config)
    assert set(table) == {"dist", "fg_rl", "more"}
    record = json.loads((tiny / config["results"] / "weights/fg_rl/released.json").read_text())
    assert record["files"]


def test_own_documents(tiny: Path) -> None:
    config = experiment(tiny, "own-documents")
    texts = tiny / "own" / "texts"
    texts.mkdir(parents=True)
    made = rows("eli5", 0, 24)
    for row in made:
        for doc in row["docs"]:
            (texts / f"{doc['title'].replace(' ', '-')}.txt").write_text(doc["text"])
    questions = "\n".join(json.dumps({"question": row["question"]}) for row in made)
    (tiny / "own" / "questions.jsonl").write_text(questions)
    config["data"] |= {"dev_size": {"eli5": 3}, "test_size": {"eli5": 4}}
    # The verifier is a random one.
    config["teacher"]["min_reward"] = None
    with ChatServer() as server:
        config["teacher"]["endpoint"]["url"] = server.url
        server.answer = lambda _: chat("A person was born there [1]. So was another [2].")
        table = run(tiny, "own-documents", config, OPENAI_API_KEY="sk-tests")
        assert len(server.requests) == 20
        assert server.requests[0][1]["authorization"] == "Bearer sk-tests"
    assert set(table) == {"plain", "dist", "fg_rs", "fg_rl"}
    assert float(table["dist"]["eli5_citation_recall"]) >= 0
    results = tiny / config["results"]
    account = json.loads((results / "teacher" / "account.json").read_text())
    assert account["answers"] == 20
    train = json.loads((results / "data" / "train.json").read_text())
    assert len(train) == 17
    assert all(row["docs"] for row in train)
    written = [path.read_bytes() for path in results.rglob("*") if path.is_file()]
    assert not any(b"sk-tests" in content for content in written)

    def stale_with(**endpoint: Any) -> set[str]:
        config["teacher"]["endpoint"] |= endpoint
        (tiny / "own-documents.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        table = f"{config['results']}/table.csv"
        return stale(tiny, "--configfile", "own-documents.yaml", "--", table)

    assert stale_with(url="http://127.0.0.1:9/v1", max_cost=1.0, concurrency=3) == set()
    assert {"teach", "sft dist", "table"} <= stale_with(model="another")

    # Without a teacher: the base learns from its own answers.
    del config["teacher"]
    sampled = {"sample": "segment_search", "from": "plain"}
    config["results"] = "results/untaught"
    config["systems"] = {
        "plain": {"adapter": None},
        "fg_rs": {"train": "sft", "start": "plain", "data": sampled},
        "fg_rl": {"train": "ppo", "start": "plain", "reward": "fine_grained"},
    }
    assert set(run(tiny, "untaught", config)) == {"plain", "fg_rs", "fg_rl"}
    assert not (tiny / "results" / "untaught" / "teacher").exists()
