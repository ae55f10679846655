"""Steps of training the way the paper's code takes them, on the same models, to measure against.

Written from reading HCY123902/atg-w-fg-rw; no line of it is here. What decides the price of a step
is done as there, and each place names the file that does it so:

- a row is as long as the longest that is allowed, prompt and answer, whatever it holds;
- every pass computes the logits of all positions, and the loss over them that nobody reads;
- the passes that score a rollout take all its rows at once, those that train take one each;
- the verifier is asked one pair at a time, by `generate`.

What costs nothing or next to nothing is citepipe's own: advantages, losses, where rewards go. Left
out, to its favour: logging, gathering over devices, dropout, gradient checkpointing where ours runs
without it, and asking the verifier again about a pair that occurred before in the rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from citepipe.train.losses import policy_loss, value_loss
from citepipe.verify.base import Pair

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""The label of positions without loss, as transformers has it."""
_VERIFIER_TOKENS = 10
_VERIFIER_LENGTH = 2048


class Rows(NamedTuple):
    """Prompts with their answers as `fgrlhf/model_vllm.py` combines them: nothing between the two,
    padding behind.

    Notation: B rows, L the longest prompt allowed plus the longest answer allowed, T the latter.
    """

    ids: torch.Tensor
    """(B, L)."""
    mask: torch.Tensor
    """(B, L), 1 on tokens."""
    prompts: list[int]
    """Tokens of each prompt."""
    answers: torch.Tensor
    """(B, T)."""
    answer_mask: torch.Tensor
    """(B, T) float, 1 on tokens."""

    def part(self, start: int, end: int) -> Rows:
        """Some of the rows, padded as they were."""
        rows = slice(start, end)
        return Rows(
            self.ids[rows],
            self.mask[rows],
            self.prompts[rows],
            self.answers[rows],
            self.answer_mask[rows],
        )


class Targets(NamedTuple):
    """What a PPO update learns from, each (B, T) on the device."""

    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor


@dataclass
class PaperPPO:
    """One model with the adapters `policy`, `reference` and `value`, trained the paper's way.

    Attributes:
        model: with the adapters.
        using: makes one of them the active one for a block.
        head: from a hidden state to its value (`fgrlhf/model_vllm.py`: a linear layer).
        pad_id: the padding token.
        ends: tokens that end an answer.
        max_prompt: `env.max_input_len` of `training/rl_fg_config.yml`.
        max_answer: `env.max_generated_len` of it.
        value_after: the value of a token is read off the state after it, as in
            `value_forward_pass` of `fgrlhf/model_vllm.py`; citepipe reads it off the state before,
            where the token is chosen. False reads it there too, so that both can be compared.
    """

    model: nn.Module
    using: Callable[[str], AbstractContextManager[None]]
    head: nn.Module
    pad_id: int
    ends: Sequence[int]
    max_prompt: int
    max_answer: int
    value_after: bool = True

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], count: int, temperature: float, top_k: int
    ) -> list[tuple[int, ...]]:
        """Answers as `sample` in `fgrlhf/policy.py` has them: one `generate`, every prompt as long
        as the longest allowed and `count` times in the batch, until the last answer has ended.

        Its other program (`fgrlhf/model_vllm.py`) leaves this to vLLM. Padding is on the left
        here, without which `generate` would go on after it.
        """
        device = self._device
        ids = torch.full((len(prompts), self.max_prompt), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, self.max_prompt - len(prompt) :] = torch.tensor(prompt)
            mask[row, self.max_prompt - len(prompt) :] = 1
        generate: Any = self.model.generate
        with self.using("policy"), self._evaluating():
            said = generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self.max_answer,
                do_sample=True,
                temperature=temperature,
                top_k=top_k,
                num_return_sequences=count,
                eos_token_id=list(self.ends),
                pad_token_id=self.pad_id,
            )[:, self.max_prompt :].tolist()
        return [_until_end(row, self.ends) for row in said]

    def rows(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Rows:
        """Each answer behind its prompt (`concat_prompt_and_generation` in `fgrlhf/utils.py`).

        Args:
            prompts: one per answer.
            answers: at most `max_answer` tokens each.
        """
        count, length = len(answers), self.max_prompt + self.max_answer
        ids = torch.full((count, length), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        padded = torch.full((count, self.max_answer), self.pad_id, dtype=torch.long)
        answer_mask = torch.zeros(count, self.max_answer)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            whole = [*prompt, *answer]
            ids[row, : len(whole)] = torch.tensor(whole)
            mask[row, : len(whole)] = 1
            padded[row, : len(answer)] = torch.tensor(answer)
            answer_mask[row, : len(answer)] = 1
        lengths = [len(prompt) for prompt in prompts]
        device = self._device
        return Rows(
            ids.to(device), mask.to(device), lengths, padded.to(device), answer_mask.to(device)
        )

    def log_probs(self, rows: Rows, adapter: str) -> torch.Tensor:
        """(B, T), as `forward_pass` in `fgrlhf/model_vllm.py`: logits of all positions, the loss
        over them, all hidden states, then a full log-softmax and the entropy of the answers'."""
        with self.using(adapter):
            logits = self._whole_pass(rows).logits
        window = self._answers_of(logits, rows, shift=-1)
        every = F.log_softmax(window, dim=-1)
        chosen = every.gather(2, rows.answers[:, :, None])[:, :, 0]
        torch.distributions.Categorical(logits=window).entropy()
        return chosen * rows.answer_mask

    def values(self, rows: Rows) -> torch.Tensor:
        """(B, T), as `value_forward_pass` there: logits are computed for them too."""
        with self.using("value"):
            hidden = self._whole_pass(rows).hidden_states[-1]
        window = self._answers_of(hidden, rows, shift=0 if self.value_after else -1)
        return self.head(window.to(next(self.head.parameters()).dtype))[:, :, 0] * rows.answer_mask

    @torch.no_grad()
    def score(self, rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Log-probabilities under policy and reference, and values, of all rows at once, in the
        order of `train` in `fgrlhf/ppo_vllm.py`."""
        with self._evaluating():
            policy, values = self.log_probs(rows, "policy"), self.values(rows)
            return policy, self.log_probs(rows, "reference"), values

    def gradients(
        self, rows: Rows, targets: Targets, clip: float, clip_value: float
    ) -> tuple[float, float]:
        """Add a minibatch's gradients up, a row at a time, and give policy and value loss
        (`loss` in `fgrlhf/ppo_vllm.py`, `training_batch_size_per_card: 1`).

        The paper's add up to the number of rows times this; see `training_parity.py`.
        """
        tokens = float(rows.answer_mask.sum())
        totals = [0.0, 0.0]
        for row in range(len(rows.ids)):
            one = rows.part(row, row + 1)
            old_log_probs, old_values, advantages, returns = (t[row : row + 1] for t in targets)
            with self.using("policy"):
                loss, _ = policy_loss(
                    self.log_probs(one, "policy"),
                    old_log_probs,
                    advantages,
                    one.answer_mask,
                    clip,
                    tokens,
                )
                loss.backward()
            with self.using("value"):
                squared = value_loss(
                    self.values(one), old_values, returns, one.answer_mask, clip_value, tokens
                )
                squared.backward()
            totals[0] += float(loss.detach())
            totals[1] += float(squared.detach())
        return totals[0], totals[1]

    def _whole_pass(self, rows: Rows) -> Any:
        labels = rows.ids.masked_fill(rows.mask == 0, IGNORED)
        return self.model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            labels=labels,
            output_hidden_states=True,
            use_cache=False,
        )

    def _answers_of(self, whole: torch.Tensor, rows: Rows, shift: int) -> torch.Tensor:
        """(B, T, ...): from each row the part behind its prompt (`remove_prompt_and_pad` in
        `fgrlhf/utils.py`), or one position before that."""
        starts = [length + shift for length in rows.prompts]
        return torch.stack(
            [row[start : start + self.max_answer] for row, start in zip(whole, starts, strict=True)]
        )

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """In training mode gradient checkpointing would do without a key-value cache."""
        before = self.model.training
        self.model.eval()
        try:
            yield
        finally:
            self.model.train(before)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device


def sft_gradients(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    pad_id: int,
    rows_at_once: int,
    length: int | None,
) -> float:
    """Add up the gradients of one optimizer step and give the loss, per token of the answers.

    `sft/run_llama_sft.py` leaves all of it to transformers' Trainer: logits of all positions, the
    loss where the label is not -100, accumulated over micro-batches.

    Args:
        model: with the adapter that learns; in training mode.
        prompts: as token ids.
        answers: one per prompt.
        pad_id: the padding token.
        rows_at_once: `per_device_train_batch_size`; 2 in `training/distillation.sh`.
        length: of every row, as with `pad_to_max_length`; None for the longest of the micro-batch,
            as its collator pads.
    """
    device = next(model.parameters()).device
    tokens = sum(map(len, answers))
    total = 0.0
    for start in range(0, len(prompts), rows_at_once):
        pairs = list(zip(prompts, answers, strict=True))[start : start + rows_at_once]
        width = length or max(len(prompt) + len(answer) for prompt, answer in pairs)
        ids = torch.full((len(pairs), width), pad_id, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for row, (prompt, answer) in enumerate(pairs):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor([*prompt, *answer])
            mask[row, :end] = 1
            labels[row, len(prompt) : end] = torch.tensor(answer)
        loss: torch.Tensor = model(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            labels=labels.to(device),
            num_items_in_batch=tokens,
            use_cache=False,
        ).loss
        loss.backward()
        total += float(loss.detach())
    return total


class OneByOne:
    """A verifier that is asked as `NLIModel` in `training/reward.py` is: each pair by a `generate`
    of its own, at most ten tokens, read as text.

    Args:
        model: an encoder-decoder.
        tokenizer: its own.
        text: the input, with {premise} and {hypothesis}.
        label: the answer that means entailed.
        most: pairs that are asked in a call; the others count as not entailed. None for all.

    Attributes:
        asked: every pair so far.
        share: of the last call's pairs, those that were asked.
    """

    name = "one by one"

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        text: str = "premise: {premise} hypothesis: {hypothesis}",
        label: str = "1",
        most: int | None = None,
    ) -> None:
        self._model, self._tokenizer = model, tokenizer
        self._text, self._label = text, label
        self._most = most
        self.asked: list[Pair] = []
        self.share = 1.0

    @torch.inference_mode()
    def entails(self, pairs: Sequence[Pair]) -> list[bool]:
        """One decision per pair, in order."""
        self.asked += pairs
        chosen = pairs[: self._most]
        self.share = len(chosen) / max(len(pairs), 1)
        return [self._decide(pair) for pair in chosen] + [False] * (len(pairs) - len(chosen))

    def _decide(self, pair: Pair) -> bool:
        text = self._text.replace("{hypothesis}", pair.hypothesis)
        text = text.replace("{premise}", pair.premise)
        ids: Any = self._tokenizer(
            text, return_tensors="pt", max_length=_VERIFIER_LENGTH, truncation=True
        ).input_ids
        generate: Any = self._model.generate
        said = generate(ids.to(self._model.device), max_new_tokens=_VERIFIER_TOKENS)[0]
        return str(self._tokenizer.decode(said, skip_special_tokens=True)) == self._label


def _until_end(tokens: list[int], ends: Sequence[int]) -> tuple[int, ...]:
    """Up to and with the first token that ends an answer."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tuple(tokens[: place + 1])
    return tuple(tokens)
