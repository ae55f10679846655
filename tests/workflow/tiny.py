"""The smallest project in which the whole workflow runs: rows, a base model, and a T5 verifier."""

import json
from pathlib import Path
from typing import Any

import yaml

from .project import copy_workflow

CHAIN = {
    "dist": {"train": "sft", "data": "teacher"},
    "fg_rs": {
        "train": "sft",
        "start": "dist",
        "data": {"sample": "segment_search", "from": "dist"},
    },
    "fg_rs_rl": {"train": "ppo", "start": "fg_rs", "reward": "fine_grained"},
    "copy": {"extract": "first_sentence"},
}
"""Three systems, each made from the one before, and one that copies."""

PLACES = ["Oslo", "Rome", "Lima", "Cairo", "Delhi", "Quito"]


def rows(dataset: str, first: int, count: int) -> list[dict[str, Any]]:
    """Questions about who was born where, in the layout of the authors' files."""
    made = []
    for number in range(first, first + count):
        place = PLACES[number % len(PLACES)]
        docs = [
            {"title": f"Person {number}{k}", "text": f"Person {number}{k} was born in {place}."}
            for k in "abcde"
        ]
        answer = f"Person {number}a was born in {place}"
        row = {
            "id": f"{dataset}{number}",
            "dataset": dataset,
            "question": f"Who was born in {place}, number {number} of {dataset}?",
            "docs": docs,
            "output": [f"{answer} [1]. Person {number}b was also born there [2][3]."],
            "answer": f"{answer}.",
            "annotations": None,
            "qa_pairs": None,
            "answers": None,
            "claims": None,
        }
        if dataset == "asqa":
            row["annotations"] = [{"long_answer": f"{answer}."}] * 2
            row["qa_pairs"] = [{"question": "Who?", "short_answers": [f"Person {number}a"]}]
        elif dataset == "qampari":
            row["output"] = [f"Person {number}a [1], Person {number}b [2]."]
            row["answers"] = [[f"Person {number}a"], [f"Person {number}b"]]
        else:
            row["claims"] = [f"{answer}."]
        made.append(row)
    return made


def write_rows(folder: Path) -> None:
    """Training, development and test files."""
    folder.mkdir(parents=True)
    three = ("asqa", "qampari", "eli5")
    splits = {
        "train": [row for dataset in three for row in rows(dataset, 0, 4)],
        "dev": [row for dataset in three for row in rows(dataset, 10, 2)],
        "test": [row for dataset in three for row in rows(dataset, 20, 2)],
        "expertqa": rows("expertqa", 20, 2),
    }
    for name, made in splits.items():
        (folder / f"{name}.json").write_text(json.dumps(made))


def write_models(folder: Path, texts: list[str]) -> None:
    """A random Llama as base model, and a random T5 that answers "1" about half of the time."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    from tests.tokenizer import tiny_llama, train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(texts, 320, 512)
    tokenizer.save_pretrained(folder / "base")
    base = tiny_llama(tokenizer, num_hidden_layers=1)
    # Its answers end, one early, the other late.
    torch.nn.init.normal_(base.lm_head.weight[tokenizer.eos_token_id], std=2)
    base.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "verifier")
    verifier = T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            tie_word_embeddings=False,
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    # Of all answers only "1" and "0" have a chance, "1" where the decoder's state points its way.
    one, zero = (tokenizer.encode(digit, add_special_tokens=False)[0] for digit in "10")
    direction = torch.randn(16)
    with torch.no_grad():
        verifier.lm_head.weight.zero_()
        verifier.lm_head.weight[one] = direction
        verifier.lm_head.weight[zero] = -direction
    verifier.save_pretrained(folder / "verifier")


def write_project(folder: Path) -> None:
    """A copy of the workflow and the package, with a configuration of the tiny size."""
    copy_workflow(folder)
    write_rows(folder / "data")
    texts = [json.dumps(row) for row in rows("asqa", 0, 20)]
    write_models(folder / "models", texts)
    short = {"max_new_tokens": 12}
    # What a random model says is seldom better than what it says first.
    sampled = {"max_new_tokens": 24, "min_reward": None, "temperature": 1.0, "top_k": 0}
    sft = {"max_steps": 2, "batch_size": 4, "max_output_tokens": 64, "evaluations": 1}
    rl = {
        "episodes": 8,
        "prompts_per_step": 2,
        "samples_per_prompt": 2,
        "warmup_steps": 1,
        "evaluations": 1,
        "dev_questions": 2,
        "save_every": 1,
    } | short
    config = {
        "data": {
            "train": ["data/train.json"],
            "dev": ["data/dev.json"],
            "test": dict.fromkeys(("asqa", "qampari", "eli5"), "data/test.json")
            | {"expertqa": "data/expertqa.json"},
        },
        "prompt": {"instruction": "Answer.", "max_input_tokens": 400},
        "model": {"base": "models/base", "dtype": "float32", "adapter": {"r": 2, "dropout": 0.0}},
        "verifiers": {
            "train": "models/verifier",
            "report": {"t5": "models/verifier", "lexical": "lexical"},
        },
        "sft": sft,
        "rs_sft": sft,
        "best_of_n": {"questions": 6, "n": 6} | sampled,
        "segment_search": {"questions": 12, "beams": 1, "samples_per_beam": 2, "depth": 1}
        | sampled,
        "rl": rl,
        "grpo": dict(rl),
        "dpo": {"max_steps": 2, "batch_size": 2, "evaluations": 1},
        "predict": short,
        "score": {"resamples": 10},
        "systems": CHAIN,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
