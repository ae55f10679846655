"""Steps of training the way the paper's code takes them, on the same models, to measure against.

Written from reading HCY123902/atg-w-fg-rw; no line of it is here. What decides the price of a step
is done as there, and each place names the file that does it so:

- a row is as long as the longest that is allowed, prompt and answer, whatever it holds;
- every pass computes the logits of all positions, and the loss over them that nobody reads;
- the passes that score a rollout take all its rows at once, those that train take one each.

The verifier is queried one pair at a time, by `generate` (`entailment.OneByOne`).

What costs nothing or next to nothing is citepipe's own: advantages, losses, where rewards go. Left
out, to its favour: logging, gathering over devices, dropout, gradient checkpointing where ours runs
without it, and querying a pair again that occurred before in the rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from citepipe.train.batch import Row
from citepipe.train.losses import policy_loss, value_loss
from citepipe.train.methods import Targets

IGNORED = -100
"""The label of positions without loss, as transformers has it."""


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


@dataclass
class PaperPPO:
    """One model with the adapters `policy`, `reference` and `value`, trained the paper's way.

    Attributes:
        model: with the adapters.
        using: makes one of them the active one for a block.
        head: from a hidden state to its value (`fgrlhf/model_vllm.py`: a linear layer).
        pad_id: the padding token.
        ends: tokens that end an answer.
        max_prompt, max_answer: `env.max_input_len` and `env.max_generated_len` of
            `training/rl_fg_config.yml`.
    """

    model: nn.Module
    using: Callable[[str], AbstractContextManager[None]]
    head: nn.Module
    pad_id: int
    ends: Sequence[int]
    max_prompt: int
    max_answer: int

    @torch.no_grad()
    def sample(
        self, prompts: Sequence[Sequence[int]], count: int, temperature: float, top_k: int
    ) -> None:
        """Sample as `sample` in `fgrlhf/policy.py` does: one `generate`, every prompt as long as
        the longest allowed and `count` times in the batch, until the last answer has ended.

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
            generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=self.max_answer,
                do_sample=True,
                temperature=temperature,
                top_k=top_k,
                num_return_sequences=count,
                eos_token_id=list(self.ends),
                pad_token_id=self.pad_id,
            )

    def rows(self, rows: Sequence[Row]) -> Rows:
        """Each answer behind its prompt (`concat_prompt_and_generation` in `fgrlhf/utils.py`)."""
        count, length = len(rows), self.max_prompt + self.max_answer
        ids = torch.full((count, length), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        padded = torch.full((count, self.max_answer), self.pad_id, dtype=torch.long)
        answer_mask = torch.zeros(count, self.max_answer)
        for place, (prompt, answer) in enumerate(rows):
            whole = torch.tensor([*prompt, *answer])
            ids[place, : len(whole)] = whole
            mask[place, : len(whole)] = 1
            padded[place, : len(answer)] = torch.tensor(answer)
            answer_mask[place, : len(answer)] = 1
        lengths = [len(row.prompt) for row in rows]
        device = self._device
        return Rows(
            ids.to(device), mask.to(device), lengths, padded.to(device), answer_mask.to(device)
        )

    def log_probs(self, rows: Rows, adapter: str) -> torch.Tensor:
        """(B, T), as `forward_pass` in `fgrlhf/model_vllm.py`: logits of all positions, the loss
        over them, all hidden states, then a full log-softmax and the entropy of the answers'."""
        with self.using(adapter):
            logits = self._whole_pass(rows).logits
        window = self._answers_of(logits, rows)
        every = F.log_softmax(window, dim=-1)
        chosen = every.gather(2, rows.answers[:, :, None])[:, :, 0]
        torch.distributions.Categorical(logits=window).entropy()
        return chosen * rows.answer_mask

    def values(self, rows: Rows) -> torch.Tensor:
        """(B, T), as `value_forward_pass` there: logits are computed for them too. The paper's are
        read off the state after a token; here off the state before, to be compared with ours."""
        with self.using("value"):
            hidden = self._whole_pass(rows).hidden_states[-1]
        window = self._answers_of(hidden, rows)
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
        columns = (targets.log_probs, targets.values, targets.advantages, targets.returns)
        wide = [
            F.pad(column, (0, self.max_answer - column.shape[1])).to(self._device)
            for column in columns
            if column is not None
        ]
        totals = [0.0, 0.0]
        for row in range(len(rows.ids)):
            one = Rows(*(column[row : row + 1] for column in rows))
            old_log_probs, old_values, advantages, returns = (t[row : row + 1] for t in wide)
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

    def _answers_of(self, whole: torch.Tensor, rows: Rows) -> torch.Tensor:
        """(B, T, ...): from each row the part behind its prompt (`remove_prompt_and_pad` in
        `fgrlhf/utils.py`), a position before the tokens that it predicts."""
        starts = [length - 1 for length in rows.prompts]
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
    model: nn.Module, rows: Sequence[Row], pad_id: int, rows_at_once: int, length: int | None
) -> float:
    """Add up the gradients of one optimizer step and give the loss, per token of the answers.

    `sft/run_llama_sft.py` leaves all of it to transformers' Trainer: logits of all positions, the
    loss where the label is not -100, accumulated over micro-batches.

    Args:
        model: with the adapter that learns; in training mode.
        rows: prompts and their answers.
        pad_id: the padding token.
        rows_at_once: `per_device_train_batch_size`; 2 in `training/distillation.sh`.
        length: of every row, as with `pad_to_max_length`; None for the longest of the micro-batch,
            as its collator pads.
    """
    device = next(model.parameters()).device
    tokens = sum(len(row.answer) for row in rows)
    total = 0.0
    for start in range(0, len(rows), rows_at_once):
        batch = rows[start : start + rows_at_once]
        width = length or max(len(row.prompt) + len(row.answer) for row in batch)
        ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
        for place, row in enumerate(batch):
            whole = torch.tensor([*row.prompt, *row.answer])
            ids[place, : len(whole)] = whole
            mask[place, : len(whole)] = 1
            labels[place, len(row.prompt) : len(whole)] = torch.tensor(row.answer)
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
