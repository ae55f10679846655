"""How much quicker is a step of training than the way the paper's code takes it?

    python benchmarks/train.py

The same models, questions and sampled answers, in one process and by turns: a step of PPO and one
of supervised fine-tuning, citepipe's and the paper's way (`paper_training.py`). Timed are sampling,
rewards by an entailment model, scoring (log-probabilities and values) and the update. What both
compute is compared too: rewards, log-probabilities, values, losses and gradients have to agree up
to rounding.

This is the size of the miniature, on a CPU; `gpu_train.py` does the same at seven billion
parameters.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import tiny_t5
import torch
from bound import encoder_operations, matmul_rate, wait
from machine import RESULTS, Report
from odd_answers import taught_examples
from paper_training import OneByOne, PaperPPO, Rows, sft_gradients
from paper_training import Targets as PaperTargets
from parity import labelled_pairs

from citepipe.data.example import Example
from citepipe.data.files import write_examples
from citepipe.generate.completion import Generator
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.generate.text import Detokenizer
from citepipe.models.encode import encode_prompt
from citepipe.models.load import computing, language_model_of, load_tokenizer
from citepipe.options import (
    AdapterOptions,
    ModelOptions,
    PPOOptions,
    PromptOptions,
    RewardOptions,
    SFTOptions,
)
from citepipe.rewards import Rewarder
from citepipe.train import sft
from citepipe.train.actor_critic import ActorCritic
from citepipe.train.job import Job
from citepipe.train.methods import METHODS, Rollout, Targets
from citepipe.train.rl import Learner
from citepipe.train.trainer import Item, Trainer
from citepipe.verify.base import Pair

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PARTS = ("sampling", "rewards", "scoring", "update")
_BASE = Path(__file__).parents[1] / "workflow" / "resources" / "miniature-base"
_DATASETS = ("asqa", "qampari", "eli5")
_QUESTIONS = 200
"""Of each."""
_PROMPT = PromptOptions(
    instruction="",
    demo_prompt="Question: {Q}\n{D}Answer:{A}",
    doc_prompt=" [{ID}] {T}: {P}\n",
    max_input_tokens=160,
)
_MAX_PROMPT, _MAX_ANSWER = 160, 64
"""As `config.yaml` has them; the paper's are 1,200 and 200."""
_VERIFIER_STEPS = 400
_MATMUL_SIZE = 2048
_BAR = 4.0
_ROUNDING = 1e-3
"""Relative; in 32 bits, passes of other shapes sum in another order."""


class Shape(NamedTuple):
    """What decides the operations of a decoder of Llama's kind."""

    layers: int
    inner: int
    """Width of all attention heads together."""
    weights: int
    """In the layers' matrices."""
    head: int
    """In the output matrix."""
    adapter: int
    """In an adapter."""

    @classmethod
    def of(cls, config: PretrainedConfig, adapter: int) -> Shape:
        """The shape of a model's configuration."""
        inner = config.num_attention_heads * config.head_dim
        keys = config.num_key_value_heads * config.head_dim
        per_layer = config.hidden_size * (2 * inner + 2 * keys + 3 * config.intermediate_size)
        layers = config.num_hidden_layers
        return cls(
            layers, inner, layers * per_layer, config.hidden_size * config.vocab_size, adapter
        )


class Work(NamedTuple):
    """Floating-point operations of a pass over prompts and their answers, each prompt once and
    without padding. Counted are the matrix products: two operations per weight and token, and
    attention's two products."""

    forward: float
    backward: float
    """Of the adapter alone: through all weights, but to the adapter's only."""
    head: float
    """Of the output matrix on the answers' tokens, in either direction."""

    @classmethod
    def of(cls, shape: Shape, prompts: Sequence[int], answers: Sequence[Sequence[int]]) -> Work:
        """Of prompts and of each one's answers, in tokens."""
        tokens, seen = 0, 0.0
        for prompt, own in zip(prompts, answers, strict=True):
            tokens += prompt + sum(own)
            seen += _seen(0, prompt) + sum(_seen(prompt, length) for length in own)
        attention = 4 * shape.inner * shape.layers * seen
        return cls(
            2 * (shape.weights + shape.adapter) * tokens + attention,
            2 * (shape.weights + 2 * shape.adapter) * tokens + 2 * attention,
            2.0 * shape.head * sum(map(sum, answers)),
        )


def _seen(before: int, count: int) -> float:
    """How many tokens `count` tokens see together, `before` others in front of them."""
    return before * count + count * (count + 1) / 2


class Clock:
    """Seconds by name, of several rounds.

    Args:
        device: a GPU is waited for.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def timing(self, name: str) -> Iterator[None]:
        """Time a block."""
        wait(self.device)
        began = time.perf_counter()
        yield
        wait(self.device)
        self.seconds.setdefault(name, []).append(time.perf_counter() - began)

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that times itself."""

        def run(*arguments: Any, **more: Any) -> Any:
            with self.timing(name):
                return function(*arguments, **more)

        return run

    def median(self, name: str) -> float:
        """The middle one of its rounds."""
        return statistics.median(self.seconds[name])


@dataclass
class Comparison:
    """A step of PPO, ours and the paper's way, on the same models.

    Attributes:
        model: the base model.
        actor: policy, reference and value model.
        tokenizer: the base model's.
        options: how PPO is done by both.
        rewarder: finds rewards our way.
        one_by_one: the same entailment model, asked the paper's way.
        paper: the paper's way of everything else.
        examples: questions.
        prompts: their prompts as token ids.
        clocks: seconds of each way.
        sampled: tokens that each way sampled, per step.
        generator: samples our way.
    """

    model: ModelOptions
    actor: ActorCritic
    tokenizer: PreTrainedTokenizerBase
    options: PPOOptions
    rewarder: Rewarder
    one_by_one: OneByOne
    paper: PaperPPO
    examples: Sequence[Example]
    prompts: Sequence[tuple[int, ...]]
    clocks: dict[str, Clock] = field(init=False)
    sampled: dict[str, list[int]] = field(init=False)
    generator: Generator = field(init=False)

    def __post_init__(self) -> None:
        self.device = str(self.actor.model.device)
        self.clocks = {name: Clock(self.device) for name in ("ours", "paper")}
        self.sampled = {"ours": [], "paper": []}
        rows = self.options.prompts_per_step * self.options.samples_per_prompt
        self.generator = HuggingFaceGenerator(self.actor.model, self.tokenizer, rows)
        pad_id = int(self.tokenizer.pad_token_id)
        self._learner = Learner(
            "ppo",
            self.options,
            "fine_grained",
            self.actor,
            self.generator,
            self.rewarder,
            pad_id,
            seed=0,
        )
        self._optimizer = self._learner.optimizer
        # Every round is to start from the same weights; a step of size 0 costs what any does.
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0

    def restart(self) -> None:
        """Forget what was timed."""
        for clock, tokens in zip(self.clocks.values(), self.sampled.values(), strict=True):
            clock.seconds.clear()
            tokens.clear()

    def ours(self, round_: int) -> tuple[Rollout, Targets]:
        """A step our way."""
        clock, chosen = self.clocks["ours"], self._questions(round_)
        with clock.timing("step"):
            rollout = self.collect(chosen, f"round {round_}", clock)
            with clock.timing("update"):
                targets = METHODS["ppo"].targets(rollout, self.options, self.options.kl_coef, True)
                self.update(rollout, targets)
        seconds = clock.seconds
        seconds.setdefault("scoring", []).append(
            seconds["step"][-1] - sum(seconds[n][-1] for n in ("sampling", "rewards", "update"))
        )
        self.sampled["ours"].append(sum(map(len, _answers(rollout))))
        return rollout, targets

    def collect(self, chosen: Sequence[int], key: str, clock: Clock) -> Rollout:
        """Our rollout of some questions; sampling and rewards are timed."""
        generate = clock.timed("sampling", self.generator.generate)
        spans = clock.timed("rewards", self.rewarder.spans)
        timed = replace(
            self._learner,
            generator=SimpleNamespace(generate=generate),  # type: ignore[arg-type]
            rewarder=SimpleNamespace(spans=spans),  # type: ignore[arg-type]
        )
        with computing(self.model):
            return timed.collect(
                [self.examples[i] for i in chosen], [self.prompts[i] for i in chosen], key
            )

    def update(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """Our optimizer step on a whole rollout."""
        return self._learner.update(rollout, targets, range(self.options.prompts_per_step))

    def paper_way(self, round_: int, rollout: Rollout, targets: Targets) -> None:
        """A step the paper's way: it samples answers of its own, and goes on with ours."""
        clock, chosen = self.clocks["paper"], self._questions(round_)
        options = self.options
        with clock.timing("sampling"):
            answers = self.paper.sample(
                [self.prompts[i] for i in chosen],
                options.samples_per_prompt,
                options.temperature,
                options.top_k,
            )
        self.sampled["paper"].append(sum(map(len, answers)))
        with clock.timing("rewards"):
            self.paper_rewards(round_, rollout)
        clock.seconds["rewards"][-1] /= self.one_by_one.share
        with clock.timing("scoring"):
            rows = self.rows(rollout)
            self.paper.score(rows)
        with clock.timing("update"):
            self._optimizer.zero_grad(set_to_none=True)
            self.paper_gradients(rows, targets)
            self._optimizer.step()
        seconds = clock.seconds
        seconds.setdefault("step", []).append(sum(seconds[part][-1] for part in PARTS))

    def paper_rewards(self, round_: int, rollout: Rollout) -> list[dict[str, float]]:
        """Per answer the sum of each reward, the verifier asked the paper's way."""
        owners = [
            self.examples[i]
            for i in self._questions(round_)
            for _ in range(self.options.samples_per_prompt)
        ]
        texts = [sample.text for sample in rollout.samples]
        return Rewarder(self.one_by_one, RewardOptions()).reward(owners, texts)

    def rows(self, rollout: Rollout) -> Rows:
        """The rollout's answers as the paper's way lays them out."""
        prompts = [sample.row.prompt for sample in rollout.samples]
        return self.paper.rows(prompts, _answers(rollout))

    def paper_gradients(self, rows: Rows, targets: Targets) -> tuple[float, float]:
        """Gradients of a whole rollout the paper's way; policy and value loss."""
        wide = [
            torch.nn.functional.pad(tensor, (0, rows.answers.shape[1] - tensor.shape[1]))
            for tensor in (targets.log_probs, targets.values, targets.advantages, targets.returns)
            if tensor is not None
        ]
        on_device = PaperTargets(*(tensor.to(self.device) for tensor in wide))
        return self.paper.gradients(
            rows, on_device, self.options.clip_ratio, self.options.clip_value
        )

    def differences(self, round_: int) -> dict[str, float]:
        """How far both ways are apart in what they compute, relative to the size of the numbers.

        The paper's value of a token is read off the state behind it; here it is read where ours
        is. Adapter dropout is off in both.
        """
        rollout, targets = self.ours(round_)
        rows = self.rows(rollout)
        after, self.paper.value_after = self.paper.value_after, False
        try:
            log_probs, reference, values = (t.cpu() for t in self.paper.score(rows))
            found = {
                "log-probabilities": (log_probs, rollout.log_probs),
                "reference's": (reference, rollout.reference_log_probs),
                "values": (values, rollout.values),
            }
            # Targets apart from what the models say now, so that the ratio and the clipping count.
            generator = torch.Generator().manual_seed(0)
            assert targets.values is not None
            moved = targets._replace(
                log_probs=_moved(targets.log_probs, generator),
                values=_moved(targets.values, generator),
            )
            losses = self.update(rollout, moved)
            gradients = [self._gradients()]
            self._optimizer.zero_grad(set_to_none=True)
            paper_losses = self.paper_gradients(rows, moved)
            gradients.append(self._gradients())
        finally:
            self.paper.value_after = after
        apart = {
            name: _relative(their[:, : our.shape[1]], our)
            for name, (their, our) in found.items()
            if our is not None
        }
        for name, loss in zip(("policy", "value"), paper_losses, strict=True):
            apart[f"{name} loss"] = abs(loss - losses[f"{name}_loss"]) / abs(loss)
        for name, our, their in zip(("policy", "value"), *gradients, strict=True):
            apart[f"{name} gradient"] = _relative(their, our)
        rewards = [sample.totals for sample in rollout.samples]
        apart["rewards"] = max(
            abs(sum(a.values()) - sum(b.values()))
            for a, b in zip(rewards, self.paper_rewards(round_, rollout), strict=True)
        )
        return apart

    def _gradients(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All gradients of the policy, and of the value model, each in one row."""
        policy, value = (
            torch.cat([p.grad.flatten() for p in parameters.values() if p.grad is not None])
            for parameters in (self.actor.policy_parameters(), self.actor.value_parameters())
        )
        return policy, value

    def _questions(self, round_: int) -> list[int]:
        count = self.options.prompts_per_step
        return [(round_ * count + i) % len(self.prompts) for i in range(count)]

    def bounds(self, rollout: Rollout, encoder: float, rate: float) -> dict[str, float]:
        """Seconds that the needed matrix products take at a rate, by part.

        Args:
            rollout: a step's.
            encoder: operations of the entailment model's encoder.
            rate: operations per second.
        """
        adapter = sum(parameter.numel() for parameter in self.actor.policy_parameters().values())
        shape = Shape.of(self.actor.model.config.get_text_config(), adapter)
        work = Work.of(
            shape,
            *_lengths(rollout, self.options.samples_per_prompt),
        )
        operations = {
            "sampling": work.forward + work.head,
            "rewards": encoder,
            "scoring": 3 * work.forward + 2 * work.head,
            "update": 2 * (work.forward + work.backward) + 2 * work.head,
        }
        return {name: count / rate for name, count in operations.items()}


def _answers(rollout: Rollout) -> list[tuple[int, ...]]:
    return [sample.row.answer for sample in rollout.samples]


def _lengths(rollout: Rollout, count: int) -> tuple[list[int], list[list[int]]]:
    """Tokens of each question's prompt, and of its `count` answers."""
    questions = [rollout.samples[i : i + count] for i in range(0, len(rollout.samples), count)]
    prompts = [len(own[0].row.prompt) for own in questions]
    return prompts, [[len(sample.row.answer) for sample in own] for own in questions]


def _moved(tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return tensor + 0.1 * torch.randn(tensor.shape, generator=generator) * (tensor != 0)


def _relative(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((theirs - ours).norm() / theirs.norm().clamp(min=1e-30))


class SFTComparison:
    """A step of supervised fine-tuning, ours and the paper's way, on the same model.

    Args:
        model: the base model.
        start: the adapter that learns.
        tokenizer: the base model's.
        items: the answers of one optimizer step.
        options: of our way.
        longest: tokens that a row may have.
        state: a folder.
    """

    def __init__(
        self,
        model: ModelOptions,
        start: Path | None,
        tokenizer: PreTrainedTokenizerBase,
        items: Sequence[Item],
        options: SFTOptions,
        longest: int,
        state: Path,
    ) -> None:
        self.model, self.items, self.longest = model, list(items), longest
        self.pad_id = int(tokenizer.pad_token_id)
        job = Job(
            model=model, prompt=_PROMPT, start=start, out=state, state=state, fingerprint="",
            seed=0, threads=torch.get_num_threads(),
        )  # fmt: skip
        self._trainer = Trainer("sft", job, options, sft.losses, tokenizer)
        self.learner = self._trainer.model
        self.learner.train()
        self._learning = [p for p in self.learner.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self._learning, lr=0.0)
        rows = [item.rows[0] for item in self.items]
        self.prompts = [list(row.prompt) for row in rows]
        self.answers = [list(row.answer) for row in rows]
        self.clock = Clock(str(next(self.learner.parameters()).device))
        self.ways: dict[str, Callable[[], float]] = {
            "ours": self.ours,
            "paper": lambda: self.paper_way(2, None),
            "padded": lambda: self.paper_way(1, self.longest),
        }

    def ours(self) -> float:
        """Our gradients; the loss."""
        return self._trainer.learn(self.items, 1)["loss"]

    def paper_way(self, rows_at_once: int, length: int | None) -> float:
        """Gradients the paper's way; the loss."""
        with computing(self.model):
            return sft_gradients(
                self.learner, self.prompts, self.answers, self.pad_id, rows_at_once, length
            )

    def step(self, name: str) -> float:
        """A timed step one of the `ways`; the loss."""
        with self.clock.timing(name):
            self._optimizer.zero_grad(set_to_none=True)
            loss = self.ways[name]()
            torch.nn.utils.clip_grad_norm_(self._learning, 1.0)
            self._optimizer.step()
        return loss

    def differences(self) -> dict[str, float]:
        """How far the others' loss and gradient are from ours, relatively."""
        found = {}
        for name, way in self.ways.items():
            self._optimizer.zero_grad(set_to_none=True)
            loss = torch.tensor(way())
            gradient = torch.cat([p.grad.flatten() for p in self._learning if p.grad is not None])
            found[name] = loss, gradient
        loss, gradient = found.pop("ours")
        return {
            f"{what} ({name})": _relative(their, our)
            for name, theirs in found.items()
            for what, their, our in zip(("loss", "gradient"), theirs, (loss, gradient), strict=True)
        }

    def bound(self, rate: float) -> float:
        """Seconds of the needed matrix products at a rate (operations per second)."""
        adapter = sum(parameter.numel() for parameter in self._learning)
        shape = Shape.of(language_model_of(self.learner).config.get_text_config(), adapter)
        work = Work.of(shape, list(map(len, self.prompts)), [[len(a)] for a in self.answers])
        return (work.forward + work.backward + 2 * work.head) / rate


def tell_step(comparison: Comparison, report: Report, bar: float) -> bool:
    """The parts of a step of PPO and their ratios; whether the bar was reached."""
    ours, paper = comparison.clocks["ours"], comparison.clocks["paper"]
    report(f"  {'':<10}{'ours':>10}{'paper':>10}{'ratio':>8}  rounds")
    for part in (*PARTS, "step"):
        ratios = [a / b for a, b in zip(paper.seconds[part], ours.seconds[part], strict=True)]
        middle = paper.median(part), ours.median(part)
        report(
            f"  {part:<10}{middle[1]:>8.3f} s{middle[0]:>8.3f} s{middle[0] / middle[1]:>8.1f}"
            f"  {min(ratios):.1f} to {max(ratios):.1f}"
        )
    tokens = {name: statistics.mean(each) for name, each in comparison.sampled.items()}
    report(
        f"  sampled tokens per step: ours {tokens['ours']:.0f}, paper {tokens['paper']:.0f}; "
        "scored and learnt from: ours, by both"
    )
    training = [sum(clock.median(p) for p in PARTS[1:]) for clock in (paper, ours)]
    report(f"  without sampling: {training[0] / training[1]:.1f} times as quick")
    ratio = paper.median("step") / ours.median("step")
    report(f"  a step: {ratio:.1f} times as quick; bar {bar:g}, {_verdict(ratio >= bar)}")
    return ratio >= bar


def told_padding(comparison: Comparison, rollout: Rollout) -> str:
    """By how much padding, and prompts once per answer, lengthen what a pass reads."""
    prompts, answers = _lengths(rollout, comparison.options.samples_per_prompt)
    needed = sum(prompts) + sum(map(sum, answers))
    padded = len(rollout.mask) * (comparison.paper.max_prompt + comparison.paper.max_answer)
    return f"tokens per pass: ours {needed}, paper {padded}, {padded / needed:.1f} times as many"


def tell_bounds(
    comparison: Comparison, rollout: Rollout, encoder: float, rate: float, report: Report
) -> None:
    """How near each part is to what its matrix products alone would take."""
    bounds = comparison.bounds(rollout, encoder, rate)
    clock = comparison.clocks["ours"]
    shares = ", ".join(f"{part} {bounds[part] / clock.median(part):.1%}" for part in PARTS)
    whole = sum(bounds.values())
    reached = whole / clock.median("step")
    report(f"  bound: {told_bound(whole, rate)}; ours reaches {reached:.1%} of it ({shares})")
    seconds = {part: clock.median(part) for part in PARTS}
    told = ", ".join(f"{part} {seconds[part] / sum(seconds.values()):.0%}" for part in PARTS)
    report(f"  profile of ours: {told}")


def _verdict(reached: bool) -> str:
    return "reached" if reached else "NOT REACHED"


def told_bound(seconds: float, rate: float) -> str:
    """Operations, the rate, and what they come to."""
    return f"{seconds * rate / 1e9:.1f} GFLOP at {rate / 1e9:.0f} GFLOP/s take {seconds:.3f} s"


def tell_operators(run: Callable[[], object], device: str, report: Report, most: int = 8) -> None:
    """Which operators the time of something goes to."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device != "cpu"
    activities = [ProfilerActivity.CUDA] if on_gpu else [ProfilerActivity.CPU]
    with profile(activities=activities) as profiler:
        run()
        wait(device)
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent[event.key] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    listed = ", ".join(
        f"{_short(name)} {time_ / spent.total():.0%}" for name, time_ in spent.most_common(most)
    )
    report(f"  operators: {listed}")


def _short(operator: str) -> str:
    return operator.removeprefix("aten::").removeprefix("_scaled_dot_product_")[:48]


def tell_differences(apart: Mapping[str, float], report: Report) -> int:
    """How far both ways are apart; how many quantities are further than rounding."""
    report("  apart, relatively: " + ", ".join(f"{n} {v:.0e}" for n, v in apart.items()))
    return sum(value > _ROUNDING for value in apart.values())


class Entailment(NamedTuple):
    """An entailment model, as a directory and loaded."""

    directory: Path
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def operations(self, pairs: Sequence[Pair]) -> float:
        """Floating-point operations of its encoder on some pairs."""
        lengths = [len(self.tokenizer(tiny_t5.asked(pair)).input_ids) for pair in pairs]
        return encoder_operations(self.model.config, lengths)  # type: ignore[arg-type]


def compare_ppo(
    comparison: Comparison,
    entailment: Entailment,
    rounds: int,
    rate: float,
    bar: float,
    report: Report,
) -> tuple[int, int]:
    """Steps of PPO by turns, and the report of them.

    Args:
        comparison: what is compared.
        entailment: the model behind the rewards.
        rounds: steps of each way, after one that warms up and is looked at for differences.
        rate: operations per second that the machine reaches.
        bar: how many times as quick ours should be.
        report: takes the lines.

    Returns:
        quantities that differ and should not, and bars that are missed.
    """
    apart = comparison.differences(0)
    comparison.restart()
    for round_ in range(1, rounds + 1):
        comparison.one_by_one.asked.clear()
        rollout, targets = comparison.ours(round_)
        comparison.paper_way(round_, rollout, targets)
    pairs, limits = comparison.one_by_one.asked, comparison.paper
    prompts, _ = _lengths(rollout, comparison.options.samples_per_prompt)
    report(
        f"  in the last round: prompts of {statistics.mean(prompts):.0f} tokens (limit "
        f"{limits.max_prompt}), answers of {float(rollout.mask.sum(1).mean()):.0f} (limit "
        f"{limits.max_answer}), {len(pairs)} distinct pairs to verify"
    )
    report(f"  {told_padding(comparison, rollout)}")
    reached = tell_step(comparison, report, bar)
    tell_bounds(comparison, rollout, entailment.operations(pairs), rate, report)
    tell_operators(lambda: comparison.ours(rounds), comparison.device, report)
    return tell_differences(apart, report), int(not reached)


def compare_sft(
    comparison: SFTComparison, rounds: int, rate: float, bar: float, report: Report
) -> tuple[int, int]:
    """Steps of supervised fine-tuning by turns, and the report of them; see `compare_ppo`."""
    apart = comparison.differences()
    for _ in range(rounds):
        for name in comparison.ways:
            comparison.step(name)
    clock = comparison.clock
    tokens = sum(map(len, comparison.prompts)) + sum(map(len, comparison.answers))
    count = len(comparison.answers)
    report(
        f"  {count} answers, with their prompts {tokens / count:.0f} tokens; padded to "
        f"{comparison.longest} that is {count * comparison.longest / tokens:.1f} times as many"
    )
    for name, told in (
        ("ours", "ours"),
        ("paper", "paper's script: 2 rows a pass, as long as the longer"),
        ("padded", "as its RL trains: 1 row a pass, as long as any may be"),
    ):
        ratios = [a / b for a, b in zip(clock.seconds[name], clock.seconds["ours"], strict=True)]
        ratio = clock.median(name) / clock.median("ours")
        times = f", {ratio:.1f} times ours (rounds: {min(ratios):.1f} to {max(ratios):.1f})"
        report(f"  {told:<56}{clock.median(name):>8.3f} s{'' if name == 'ours' else times}")
    report(f"  bar {bar:g} against the last, {_verdict(ratio >= bar)}")
    bound = comparison.bound(rate)
    reached = bound / clock.median("ours")
    report(f"  bound: {told_bound(bound, rate)}; ours reaches {reached:.1%} of it")
    tell_operators(lambda: comparison.step("ours"), clock.device, report)
    return tell_differences(apart, report), int(ratio < bar)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="steps of each, by turns")
    parser.add_argument("--sft-steps", type=int, default=100, help="that make the start")
    parser.add_argument("--out", type=Path, default=RESULTS / "train.txt")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers", "peft")
    report(f"{torch.get_num_threads()} threads; 32 bits on the CPU")
    with tempfile.TemporaryDirectory() as folder:
        wrong, missed = measure(Path(folder), arguments.rounds, arguments.sft_steps, report)
    report()
    report(f"unexpected differences: {wrong}; bars missed: {missed}")
    return 1 if wrong else 0


def measure(folder: Path, rounds: int, sft_steps: int, report: Report) -> tuple[int, int]:
    """Everything at the size of the miniature; see `compare_ppo`.

    Args:
        folder: for models.
        rounds: steps of each way.
        sft_steps: that make the adapter which all start from.
        report: takes the lines.
    """
    rate = matmul_rate("cpu", torch.float32, _MATMUL_SIZE)
    model = ModelOptions(
        base=str(_BASE), dtype="float32", adapter=AdapterOptions(r=16, alpha=32, dropout=0.0)
    )
    tokenizer = load_tokenizer(model)
    examples = [e for name in _DATASETS for e in taught_examples(name, _QUESTIONS, seed=7)]
    random.Random(0).shuffle(examples)
    learnt, asked = examples[: len(examples) // 2], examples[len(examples) // 2 :]
    start = _start(folder, model, learnt, asked[:32], sft_steps)
    entailment = _entailment(folder / "true", examples)
    found = []
    for told, questions in (("as few as the paper's", 2), ("as many as the miniature's", 16)):
        options = PPOOptions(
            prompts_per_step=questions,
            samples_per_prompt=4,
            temperature=1.0,
            top_k=0,
            max_new_tokens=_MAX_ANSWER,
            # Gradients are compared as they are.
            max_grad_norm=1e9,
        )
        report()
        report(f"PPO, {told}: {questions} questions, 4 answers each")
        comparison = build(
            model,
            load_actor(model, start),
            tokenizer,
            options,
            f"{entailment.directory}?dtype=float32",
            OneByOne(entailment.model, entailment.tokenizer),
            asked,
            _PROMPT,
            _MAX_PROMPT,
        )
        found.append(compare_ppo(comparison, entailment, rounds, rate, _BAR, report))
    items = sft.encode_examples(learnt[:32], _PROMPT, tokenizer, _MAX_ANSWER)
    report()
    report("supervised fine-tuning")
    supervised = SFTComparison(
        model,
        start,
        tokenizer,
        items,
        SFTOptions(max_steps=1, batch_size=32),
        _MAX_PROMPT + _MAX_ANSWER,
        folder / "state",
    )
    found.append(compare_sft(supervised, rounds, rate, _BAR, report))
    return sum(wrong for wrong, _ in found), sum(missed for _, missed in found)


def load_actor(model: ModelOptions, start: Path) -> ActorCritic:
    """Policy, reference and value model, all as the adapter at `start`; the value's head is random,
    for at zero, where it begins in earnest, its adapter would have no gradient."""
    actor = ActorCritic(model, start, with_values=True)
    assert actor.head is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(actor.head.weight, std=0.02)
    return actor


def build(
    model: ModelOptions,
    actor: ActorCritic,
    tokenizer: PreTrainedTokenizerBase,
    options: PPOOptions,
    verifier: str,
    one_by_one: OneByOne,
    examples: Sequence[Example],
    prompt: PromptOptions,
    max_prompt: int,
) -> Comparison:
    """A comparison of both ways of PPO.

    Args:
        model: the base model.
        actor: policy, reference and value model.
        tokenizer: the base model's.
        options: how PPO is done.
        verifier: the entailment model as ours loads it (`load_verifier`).
        one_by_one: the same, asked the paper's way.
        examples: questions.
        prompt: how they are put.
        max_prompt: tokens that the paper's way pads prompts to.
    """
    assert actor.head is not None
    paper = PaperPPO(
        actor.model,
        actor.using,  # type: ignore[arg-type]
        actor.head,
        int(tokenizer.pad_token_id),
        _ends(tokenizer),
        max_prompt,
        options.max_new_tokens,
    )
    return Comparison(
        model=model,
        actor=actor,
        tokenizer=tokenizer,
        options=options,
        rewarder=Rewarder(verifier, RewardOptions(), None),
        one_by_one=one_by_one,
        paper=paper,
        examples=examples,
        prompts=[encode_prompt(example, prompt, tokenizer).token_ids for example in examples],
    )


def _ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens at which an answer ends: the end of sequence, and any with a newline in it."""
    detokenizer = Detokenizer(tokenizer)
    newlines = [i for i in range(len(tokenizer)) if "\n" in detokenizer.pieces(i)[0]]
    return [int(tokenizer.eos_token_id), *newlines]


def _start(
    folder: Path, model: ModelOptions, learnt: list[Example], dev: list[Example], steps: int
) -> Path:
    """An adapter that answers and cites."""
    write_examples(folder / "train.json", learnt)
    write_examples(folder / "dev.json", dev)
    job = Job(
        model=model,
        prompt=_PROMPT,
        start=None,
        out=folder / "start",
        state=folder / "sft",
        fingerprint="",
        seed=0,
        threads=torch.get_num_threads(),
    )
    options = SFTOptions(
        max_steps=steps,
        batch_size=32,
        learning_rate=3e-3,
        max_grad_norm=1.0,
        max_output_tokens=_MAX_ANSWER,
        evaluations=1,
    )
    sft.run(job, folder / "train.json", folder / "dev.json", options)
    return folder / "start"


def _entailment(directory: Path, examples: Sequence[Example]) -> Entailment:
    """A tiny T5 that was trained on the questions' own pairs."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    labelled = labelled_pairs(examples)
    size = tiny_t5.save_tokenizer(map(tiny_t5.asked, labelled), directory)
    made = tiny_t5.random_t5(size, tiny_t5.MINIATURE, seed=3)
    tiny_t5.train(made, directory, list(labelled.items()), _VERIFIER_STEPS, seed=0)
    model = AutoModelForSeq2SeqLM.from_pretrained(directory, dtype=torch.float32).eval()
    return Entailment(directory, model, AutoTokenizer.from_pretrained(directory))


if __name__ == "__main__":
    raise SystemExit(main())
