"""Cited answers to distil: those that come with the data, made from human ones, or a model's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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
from citepipe.verify.load import load_verifier

_HINTS = {
    "given": "teacher.citations: attribute makes them from human answers, endpoint asks a model",
    "attribute": "no sentence of any human answer in field answer is supported by the documents",
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

    Every example is kept, since sampling and RL use questions without a teacher's answer too.

    Args:
        train, dev: the questions.
        verifier: the spec of the verifier that attributes, and that rewards for `min_reward`.
        cache: where a model's decisions are kept.
        journal: where answers of an endpoint are written down; kept for later runs.
        out_train, out_dev: the questions with their answers; `account.json` beside the latter
            holds what was spent.
    """
    splits = {"train": (train, out_train), "dev": (dev, out_dev)}
    examples = {name: read_examples(source) for name, (source, _) in splits.items()}
    account = out_dev.with_name("account.json")
    account.unlink(missing_ok=True)
    counts: dict[str, object] = {}
    if options.citations == "endpoint":
        if options.endpoint is None:
            raise InputError("teacher.endpoint: missing, expected where the teacher is")
        _check_prompt(options, {e.dataset for own in examples.values() for e in own})
        endpoint = Endpoint(options.endpoint, options.prompt, journal)
        try:
            for name, own in examples.items():
                examples[name] = _completed(own, endpoint.answer)
        finally:
            endpoint.close()
            spent = endpoint.account()
            write_json(account, spent)
        counts = {"tokens": spent["prompt_tokens"] + spent["answer_tokens"], "cost": spent["cost"]}
    elif options.citations == "attribute":
        judge, splitter = load_verifier(verifier, cache), load_splitter(reward.splitter)
        for name, own in examples.items():
            examples[name] = _completed(own, lambda rows: attribute(rows, judge, splitter, options))
    if options.min_reward is not None:
        # Not every question has gold answers; citations are what is to be learnt.
        citations = reward.model_copy(update={"correctness": 0.0})
        rewarder = Rewarder(verifier, citations, cache)
    for name, (source, out) in splits.items():
        own, weak = examples[name], 0
        bare = sum(not example.output and bool(example.answer) for example in own)
        if options.min_reward is not None:
            own, weak = _good(own, options.min_reward, rewarder)
        answered = sum(bool(example.output) for example in own)
        if not answered:
            hint = f"{weak} answers earn less than teacher.min_reward" if weak else None
            raise InputError(
                f"{source}: expected rows with the teacher's cited answer in field output, none "
                f"has one ({hint or _HINTS[options.citations]})"
            )
        if answered < len(own):
            left = f"{len(own) - answered} of {len(own)} {name} rows have no answer"
            left += f", {weak} of them too weak a one" if weak else ""
            if bare and options.citations == "attribute":
                left += f"; of {bare} human answers the documents support no sentence"
            say(f"teach: {left}")
        write_examples(out, own)
        counts[f"{name} answers"] = answered
    return summary("teach", counts)


def _check_prompt(options: TeacherOptions, datasets: set[str]) -> None:
    """Find what is wrong with the prompt before anything is paid for."""
    try:
        check_prompt(options.prompt, sorted(datasets))
    except InputError as error:
        line = str(error)
        raise InputError(f"teacher.{line}" if line.startswith("prompt.") else line) from None


def _completed(
    examples: Sequence[Example], answer: Callable[[Sequence[Example]], list[Example]]
) -> list[Example]:
    """The examples, those without a cited answer with one where it can be had."""
    made = iter(answer([example for example in examples if not example.output]))
    return [example if example.output else next(made) for example in examples]


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
