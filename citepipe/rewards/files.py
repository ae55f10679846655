"""The rewards of a file of answers, with every verdict that they follow from."""

from __future__ import annotations

from typing import Any

from citepipe.data.files import AnswerFile
from citepipe.judge.record import verdict_records
from citepipe.options import RewardOptions
from citepipe.rewards.answers import judge_for_rewards
from citepipe.rewards.find import find_rewards, total
from citepipe.text.sentences import load_splitter
from citepipe.verify.base import Verifier, identity_of, provenance_of


def reward_file(file: AnswerFile, verifier: Verifier, options: RewardOptions) -> dict[str, Any]:
    """Judge a file's answers and find their rewards.

    Args:
        file: the answers.
        verifier: decides what is supported.
        options: the size of each component.

    Returns:
        `per_example`: id, dataset, `verdict_records`, `rewards` (component, char: the index in the
        answer of the last character that it belongs to, value) and `totals`; `means`: of the
        totals of each component and of their sum; `left_out`; `provenance`.

    Raises:
        InputError: there is no such splitter.
    """
    splitter = load_splitter(options.splitter)
    judgements = judge_for_rewards(file.examples, file.outputs, verifier, splitter, options)
    per_example: list[dict[str, Any]] = []
    for example, output, judgement in zip(file.examples, file.outputs, judgements, strict=True):
        rewards = find_rewards(example, output, judgement, options)
        totals = total(rewards)
        per_example.append(
            {
                "id": example.id,
                "dataset": example.dataset,
                **verdict_records(output, judgement),
                "rewards": [
                    {"component": r.component, "char": r.char, "value": r.value} for r in rewards
                ],
                "totals": {**totals, "total": sum(totals.values())},
            }
        )
    names = per_example[0]["totals"]
    return {
        "per_example": per_example,
        "means": {
            name: sum(own["totals"][name] for own in per_example) / len(per_example)
            for name in names
        },
        "left_out": file.left_out,
        "provenance": {
            "verifier": verifier.name,
            "identity": identity_of(verifier),
            **provenance_of(verifier),
            "options": options.model_dump(),
            "input": {"file": file.path.name, "sha256": file.sha256},
        },
    }
