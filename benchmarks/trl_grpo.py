"""Whether TRL's GRPO with citepipe's rewards raises the citation F1 of the miniature.

    python benchmarks/trl_grpo.py results

`results` is a folder of the default's results: training starts from its system `dist` of the same
seed, on its training questions, and its test questions are answered before and after. Advantages
are of tokens (`citepipe.trainers.TokenAdvantages`); with --scalar they are TRL's own, of the summed
rewards.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from common import BASE, DATASETS, Report, argument_parser
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer

import citepipe
from citepipe.config import load_config
from citepipe.data.example import Example
from citepipe.data.files import read_examples
from citepipe.generate.completion import Request
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.encode import encode_prompts, end_token, stops
from citepipe.models.load import load_for_inference, load_tokenizer
from citepipe.trainers import CitationReward, TokenAdvantages

PROMPTS, SAMPLES, TOKENS = 8, 8, 64


class TokenTrainer(TokenAdvantages, GRPOTrainer):  # type: ignore[misc]
    """GRPO with advantages of tokens."""


def main() -> int:
    parser = argument_parser(__doc__, "trl_grpo.txt")
    parser.add_argument("results", type=Path, help="of the default")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scalar", action="store_true", help="advantages of whole answers")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    root = Path(__file__).parents[1]
    config = load_config(yaml.safe_load((root / "config.yaml").read_text(encoding="utf-8")))
    options = config.model.model_copy(update={"base": str(BASE)})
    tokenizer = load_tokenizer(options)
    start = arguments.results / "models" / "dist" / f"seed{arguments.seed}"
    model = load_for_inference(options, start)
    ends = end_token(tokenizer, config.prompt), stops(tokenizer, config.prompt)
    data = arguments.results / "data"
    tests = [own for name in DATASETS for own in read_examples(data / "test" / f"{name}.json")]
    oracle = f"citepipe.miniature.oracle:load_oracle?{arguments.results}/miniature/world/world.json"

    def rows_of(examples: Sequence[Example]) -> list[dict[str, Any]]:
        prompts = encode_prompts(examples, config.prompt, tokenizer, "trl")
        for prompt in prompts:
            assert tokenizer(prompt.text)["input_ids"] == list(prompt.token_ids)
        return [
            {"prompt": prompt.text, "row": json.dumps(example.to_row())}
            for example, prompt in zip(examples, prompts, strict=True)
        ]

    def scored(trained: Any) -> dict[str, float]:
        """Means over datasets of greedy answers to the test questions."""
        prompts = encode_prompts(tests, config.prompt, tokenizer, "trl")
        generator = HuggingFaceGenerator(trained.eval(), tokenizer, 200, *ends)
        requests = [Request(own.token_ids, str(n), TOKENS) for n, own in enumerate(prompts)]
        with torch.no_grad():
            texts = [said.text for [said] in generator.generate(requests)]
        rows = [own.to_row() | {"output": text} for own, text in zip(tests, texts, strict=True)]
        found = {}
        for name, verifier in {"lexical": "lexical", "oracle": oracle}.items():
            parts = citepipe.score(rows, verifier, resamples=1)["datasets"].values()
            for metric in ("citation_f1", "length"):
                mean = sum(part["metrics"][metric] for part in parts) / len(parts)
                found[f"{metric} {name}" if metric == "citation_f1" else metric] = mean
        return found

    report = Report(arguments.out, "torch", "transformers", "trl")
    report(f"{arguments.steps} steps of {PROMPTS} questions, {SAMPLES} answers each, advantages of "
           f"{'answers' if arguments.scalar else 'tokens'}, seed {arguments.seed}")  # fmt: skip
    before = scored(model)
    train = read_examples(data / "train.json")
    random.Random(arguments.seed).shuffle(train)
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            folder,
            seed=arguments.seed,
            max_steps=arguments.steps,
            per_device_train_batch_size=PROMPTS * SAMPLES,
            num_generations=SAMPLES,
            max_completion_length=TOKENS,
            temperature=1.0,
            beta=0.03,
            learning_rate=1e-3,
            warmup_steps=5,
            max_grad_norm=1.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=10,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = (GRPOTrainer if arguments.scalar else TokenTrainer)(
            model,
            reward_funcs=CitationReward(**config.reward.model_dump()),
            args=settings,
            train_dataset=Dataset.from_list(rows_of(train[: PROMPTS * arguments.steps])),
            processing_class=tokenizer,
            peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"),
        )
        trainer.train()
    for own in trainer.state.log_history:
        if "reward" in own:
            report(f"step {own['step']:3}: reward {own['reward']:+.3f}, KL {own.get('kl', 0):.3f}")
    after = scored(trainer.model)
    for name, value in before.items():
        report(f"{name:24}{value:8.1f} -> {after[name]:6.1f}")
    return 0 if after["citation_f1 lexical"] > before["citation_f1 lexical"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
