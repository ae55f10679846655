"""Best of n: whole answers are sampled and the one with the highest summed reward is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from citepipe.data.example import Example
from citepipe.generate.completion import Generator, Request, Sampling
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.models.encode import encode_prompt
from citepipe.models.load import check_adapter, load_for_inference, load_tokenizer
from citepipe.options.model import ModelOptions
from citepipe.options.prompt import PromptOptions
from citepipe.options.reward import RewardOptions
from citepipe.options.sample import BestOfNOptions
from citepipe.progress import summary
from citepipe.rewards.answers import Rewarder
from citepipe.sample.record import candidate, choose_questions, sample_all


def best_of_n(
    examples: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    generator: Generator,
    rewarder: Rewarder,
    options: BestOfNOptions,
    seed: int,
) -> list[list[dict[str, Any]]]:
    """Sample `options.n` answers to every question, all rewarded in one batch.

    Args:
        examples: the questions.
        prompts: their prompts as token ids.
        generator: draws the answers.
        rewarder: rewards them.
        options: how many are drawn, and how.
        seed: with a question's id and the sample's number, decides the draws.

    Returns:
        Per question its candidates, best first; of equals the one drawn first.
    """
    requests = [
        Request(prompt, f"{example.dataset}/{example.id}/{i}", options.max_new_tokens)
        for example, prompt in zip(examples, prompts, strict=True)
        for i in range(options.n)
    ]
    sampling = Sampling(options.temperature, options.top_k, seed)
    texts = [completion.text for completion in generator.generate(requests, sampling)]
    owners = [example for example in examples for _ in range(options.n)]
    rewards = rewarder.reward(owners, texts)
    candidates = [candidate(t, r) for t, r in zip(texts, rewards, strict=True)]
    groups = [candidates[i : i + options.n] for i in range(0, len(candidates), options.n)]
    return [sorted(group, key=lambda c: -c["reward"]) for group in groups]


def run(
    questions: Path,
    model: ModelOptions,
    prompt: PromptOptions,
    options: BestOfNOptions,
    reward: RewardOptions,
    verifier: str,
    cache: Path | None,
    adapter: Path,
    out_answers: Path,
    out_candidates: Path,
    state: Path,
    fingerprint: str,
    seed: int,
    threads: int,
) -> str:
    """Sample answers to the questions of a file and keep the best; see `record.sample_all`."""
    import torch

    torch.set_num_threads(threads)
    examples = choose_questions(questions, options.questions, seed)
    check_adapter(adapter)
    rewarder = Rewarder(verifier, reward, cache)
    tokenizer = load_tokenizer(model)
    generator = HuggingFaceGenerator(
        load_for_inference(model, adapter), tokenizer, options.batch_size
    )

    def sample(chunk: Sequence[Example]) -> list[list[dict[str, Any]]]:
        prompts = [encode_prompt(example, prompt, tokenizer).token_ids for example in chunk]
        return best_of_n(chunk, prompts, generator, rewarder, options, seed)

    figures = sample_all(
        label="best of n",
        questions=examples,
        sample=sample,
        at_once=max(1, 4 * options.batch_size // options.n),
        state=state,
        fingerprint=fingerprint,
        out_answers=out_answers,
        out_candidates=out_candidates,
    )
    return summary("best of n", figures)
