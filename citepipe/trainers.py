"""Citation rewards for other trainers: TRL's GRPO, verl, and over HTTP whatever else there is.

What a reward is computed from are rows as files have them ([scoring](../docs/scoring.md)): a
question, its documents and what gold answers there are, here the columns of a data set, or all of
them as JSON in one column, `row`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from citepipe.data.example import DATASETS, Example
from citepipe.errors import InputError
from citepipe.library import loaded, options_of
from citepipe.options import RewardOptions
from citepipe.rewards import Reward, Rewarder, place, total
from citepipe.verify.base import Verifier


class CitationReward:
    """A reward function: the summed rewards of each answer, for TRL's `reward_funcs`.

    Args:
        verifier: as in `citepipe.reward`, and so `dataset`, `cache` and `device`.
        name: that of the reward in logs.
        more: options of `RewardOptions` by name, such as `citation_recall=1.0`.

    Raises:
        InputError: of arguments, and of rows when it is called.
    """

    def __init__(
        self,
        verifier: Verifier | str = "lexical",
        *,
        name: str = "citation_reward",
        dataset: str | None = None,
        cache: Path | None = None,
        device: str = "auto",
        **more: Any,
    ) -> None:
        options = options_of(RewardOptions, **more)
        if dataset is not None and dataset not in DATASETS:
            raise InputError(f"dataset {dataset!r}: expected one of {', '.join(DATASETS)}")
        self.__name__ = name
        self._dataset = dataset
        self.rewarder = Rewarder(loaded(verifier, cache, device), options)
        self._last: tuple[list[Example], list[list[Reward]]] = [], []

    def __call__(self, prompts: Sequence[Any], completions: Any, **columns: Any) -> list[float]:
        """A reward per completion; `columns` of the data set, each with a value per completion.
        Of a chat's completion the last message counts."""
        texts = [text if isinstance(text, str) else text[-1]["content"] for text in completions]
        rows = [
            {name: own[n] for name, own in columns.items() if isinstance(own, list)}
            for n in range(len(texts))
        ]
        return [sum(total(own).values()) for own in self.spans(rows, texts)]

    def spans(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[list[Reward]]:
        """The rewards of answers to the questions of rows, on characters."""
        examples = self.examples(rows, texts)
        # `TokenAdvantages` asks again for what its trainer has just asked for.
        last = self._last  # read once, as threads may share this
        if examples != last[0]:
            last = self._last = examples, self.rewarder.spans(examples, texts)
        return last[1]

    def examples(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[Example]:
        """Rows with an answer each, as they are judged."""
        whole = [json.loads(row["row"]) if "row" in row else row for row in rows]
        return [
            Example.from_row({**row, "output": text}, f"row {n}", self._dataset, own_as="own")
            for n, (row, text) in enumerate(zip(whole, texts, strict=True))
        ]

    def on_tokens(
        self, rows: Sequence[Mapping[str, Any]], ids: Sequence[Sequence[int]], tokenizer: Any
    ) -> list[list[float]]:
        """The rewards of answers to the questions of rows, a reward per sampled token."""
        from citepipe.generate.text import Detokenizer

        detokenizer = Detokenizer(tokenizer)
        texts, offsets = zip(*map(detokenizer.text_and_offsets, ids), strict=True)
        return [place(*own) for own in zip(self.spans(rows, texts), offsets, strict=True)]


class TokenAdvantages:
    """In front of TRL's `GRPOTrainer` makes its advantages ones of tokens (B, T), from rewards that
    stay on the tokens that earned them (`citepipe.train.advantages.group_relative`):

        class CitationTrainer(TokenAdvantages, GRPOTrainer): ...

    The first `CitationReward` of `reward_funcs` finds the rewards. Others are logged only, and
    TRL's options about advantages (`scale_rewards`) have no effect.
    """

    def _generate_and_score_completions(self: Any, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        from citepipe.train.advantages import group_relative

        output: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        reward = next(own for own in self.reward_funcs if isinstance(own, CitationReward))
        mask = output["completion_mask"]
        sampled = zip(output["completion_ids"], mask, strict=True)
        ids = [row[kept.bool()].tolist() for row, kept in sampled]
        rewards = torch.zeros_like(mask, dtype=torch.float32)
        for n, found in enumerate(reward.on_tokens(inputs, ids, self.processing_class)):
            rewards[n, : len(found)] = torch.tensor(found)
        # The answers to a question may lie on several devices.
        every, masks = (
            self.accelerator.gather(self.accelerator.pad_across_processes(own, dim=1))
            for own in (rewards, mask)
        )
        count = self.num_generations if self.model.training else self.num_generations_eval
        first = self.accelerator.process_index * len(mask)
        estimated = group_relative(every, masks.to(every), count, dense=True)
        output["advantages"] = estimated[first : first + len(mask), : mask.shape[1]]
        return output


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    **more: Any,
) -> dict[str, float]:
    """The reward of an answer as verl asks for it (`custom_reward_function`): `score`, the sum, and
    its components. `extra_info` has the row; `data_source` is its dataset, if
    it is one of ours; `more` (verl's `reward_kwargs`) are arguments of `CitationReward`."""
    given = {"dataset": data_source} if data_source in DATASETS else {}
    reward = _reward(json.dumps({**given, **more}))
    [rewards] = reward.spans([extra_info or {}], [solution_str])
    parts = total(rewards)
    return {"score": sum(parts.values()), **parts}


def verl_advantages(
    token_level_rewards: Any, response_mask: Any, index: Any, **_: Any
) -> tuple[Any, Any]:
    """Advantages and returns (B, T) from rewards that stand on the tokens that earned them, for
    verl's `register_adv_est`: `group_relative`, over the answers of the same `index` (B,)."""
    import torch

    from citepipe.train.advantages import group_relative, returns_to_go

    advantages = torch.zeros_like(token_level_rewards)
    for question in set(index):
        own = torch.tensor([other == question for other in index])
        rewards, mask = token_level_rewards[own], response_mask[own].to(advantages)
        advantages[own] = group_relative(rewards, mask, len(rewards), dense=True)
    return advantages, returns_to_go(token_level_rewards, response_mask)


@lru_cache(maxsize=8)
def _reward(given: str) -> CitationReward:
    return CitationReward(**json.loads(given))


def rewards_app(reward: CitationReward, most_bytes: int) -> Any:
    """An application (ASGI) that answers POST /rewards.

    Of `{"rows": [{…, "output": answer, "offsets": [[start, end], …]}]}`, `offsets` of tokens if
    wanted, it makes `{"rewards": [{"total": …, "components": {…}, "rewards": [{"component", "char",
    "value"}], "tokens": […]}]}`. A body above `most_bytes` is refused with 413, rows that are wrong
    with 422 and a line; a verifier that fails is 503 and a line. One request at a time is judged.
    """
    from fastapi import FastAPI, HTTPException
    from fastapi.middleware.trustedhost import TrustedHostMiddleware
    from fastapi.responses import JSONResponse

    app = FastAPI(title="citation rewards")
    # What a page in a browser sends under another name is not meant for this machine.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])

    def answer(body: bytes) -> dict[str, Any]:
        try:
            rows = json.loads(body)["rows"]
            texts = [row["output"] for row in rows]
            examples = reward.examples(rows, texts)
            try:
                found = reward.rewarder.spans(examples, texts)
            except InputError as error:
                raise HTTPException(503, str(error)) from None
            tokens = [
                place(own, row["offsets"]) if "offsets" in row else None
                for own, row in zip(found, rows, strict=True)
            ]
        # The last of JSON that is too deep.
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise InputError(f"expected rows with `output`, broken at {error}") from None
        return {
            "rewards": [
                {
                    "total": sum(total(own).values()),
                    "components": total(own),
                    "rewards": [one._asdict() for one in own],
                    **({} if placed is None else {"tokens": placed}),
                }
                for own, placed in zip(found, tokens, strict=True)
            ]
        }

    async def rewards(request: Any) -> JSONResponse:
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > most_bytes:
                raise HTTPException(413, f"expected at most {most_bytes} bytes")
        try:
            return JSONResponse(answer(bytes(body)))
        except InputError as error:
            raise HTTPException(422, str(error)) from None

    app.add_route("/rewards", rewards, methods=["POST"])
    return app
