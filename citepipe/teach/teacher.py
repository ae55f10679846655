"""Cited answers to distil: those that come with the data, made from human ones, or asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache as once
from pathlib import Path

from citepipe.data.example import Example
from citepipe.data.files import read_examples, write_examples, write_json
from citepipe.data.prompts import check_prompt
from citepipe.errors import InputError
from citepipe.options import RewardOptions, TeacherOptions
from citepipe.progress import say, summary
from citepipe.rewards import Rewarder
from citepipe.teach.attribute import attribute
from citepipe.teach.endpoint import Endpoint
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Verifier, load_verifier

_HINTS = {
    "given": "teacher.citations: attribute makes them from human answers, endpoint asks a model",
    "attribute": "no sentence of any human answer is supported by the documents",
    "endpoint": "the endpoint answered none of the questions",
}


def teach(
    train: Path,
    dev: Path,
    options: TeacherOptions,
    verifier: str,
    reward: RewardOptions,
    cache: Path | None,
    journal: Path,
    out_train: Path,
    out_dev: Path,
) -> str:
    """Write the train and dev examples with the cited answers that will be distilled.

    Every example is kept, since sampling and RL ask questions without a teacher's answer too.

    Args:
        train: the train questions.
        dev: the dev questions.
        options: where answers come from, and which are good enough.
        verifier: the spec of the verifier that attributes, and that rewards for `min_reward`.
        reward: the size of rewards, and the sentence splitter.
        cache: where a model's decisions are kept.
        journal: where answers of an endpoint are written down; kept for later runs.
        out_train: the train questions with their answers.
        out_dev: the dev questions with theirs; `account.json` beside it says what was spent.

    Raises:
        InputError: not a single example of a file has a cited answer in the end.
    """
    counts: dict[str, object] = {}
    splits = [
        ("train", train, read_examples(train), out_train),
        ("dev", dev, read_examples(dev), out_dev),
    ]
    account = out_dev.with_name("account.json")
    account.unlink(missing_ok=True)
    endpoint = None
    if options.citations == "endpoint":
        _check_prompt(options, {e.dataset for _, _, examples, _ in splits for e in examples})
        if options.endpoint is None:
            raise InputError("teacher.endpoint: missing, expected where the teacher is")
        endpoint = Endpoint(options.endpoint, options.prompt, journal)

    @once
    def judge() -> Verifier:
        return load_verifier(verifier, cache)

    @once
    def rewarder() -> Rewarder:
        # Not every question has gold answers; citations are what is to be learnt.
        return Rewarder(verifier, reward.model_copy(update={"correctness": 0.0}), cache)

    try:
        for name, source, examples, out in splits:
            examples = _answered(examples, options, judge, reward.splitter, endpoint)
            weak = 0
            if options.min_reward is not None:
                examples, weak = _good(examples, options.min_reward, rewarder())
            answered = sum(bool(example.output) for example in examples)
            if not answered:
                hint = _HINTS[options.citations]
                if options.citations == "attribute" and not any(e.answer for e in examples):
                    hint = "there is no human answer in field answer either"
                if weak:
                    hint = f"{weak} answers earn less than teacher.min_reward"
                raise InputError(
                    f"{source}: expected rows with the teacher's cited answer in field output, "
                    f"none has one ({hint})"
                )
            if answered < len(examples):
                left = f", {weak} of them too weak a one" if weak else ""
                say(
                    f"teach: {len(examples) - answered} of {len(examples)} {name} rows have no "
                    f"answer{left}"
                )
            write_examples(out, examples)
            counts[f"{name} answers"] = answered
    finally:
        if endpoint is not None:
            endpoint.close()
            write_json(account, asdict(endpoint.account))
    if endpoint is not None:
        spent = endpoint.account
        counts["tokens"] = spent.prompt_tokens + spent.answer_tokens
        counts["cost"] = spent.cost
    return summary("teach", counts)


def _check_prompt(options: TeacherOptions, datasets: set[str]) -> None:
    """Find what is wrong with the prompt before anything is paid for."""
    try:
        check_prompt(options.prompt, sorted(datasets))
    except InputError as error:
        line = str(error)
        raise InputError(f"teacher.{line}" if line.startswith("prompt.") else line) from None


def _answered(
    examples: Sequence[Example],
    options: TeacherOptions,
    judge: Callable[[], Verifier],
    splitter: str,
    endpoint: Endpoint | None,
) -> list[Example]:
    """The examples, those without a cited answer with one where it can be had."""
    without = [example for example in examples if not example.output]
    if options.citations == "given" or not without:
        return list(examples)
    if endpoint is not None:
        found = endpoint.answer(without)
    else:
        found = attribute(without, judge(), load_splitter(splitter), options)
    by_place = iter(found)
    return [example if example.output else next(by_place) for example in examples]


def _good(
    examples: Sequence[Example], least: float, rewarder: Rewarder
) -> tuple[list[Example], int]:
    """The examples without answers that earn less than `least`, and how many those were."""
    answered = [example for example in examples if example.output]
    totals = rewarder.reward(answered, [example.output or "" for example in answered])
    # What is just as large must not fall below by rounding.
    weak = {
        id(example)
        for example, total in zip(answered, totals, strict=True)
        if sum(total.values()) < least - 1e-9
    }
    kept = [replace(e, output=None) if id(e) in weak else e for e in examples]
    return kept, len(weak)
