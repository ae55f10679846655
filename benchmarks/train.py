"""How much quicker is a step of training than the way the paper's code takes it?

    python benchmarks/train.py

The same models, questions and sampled answers, in one process and by turns: a step of PPO and one
of supervised fine-tuning, citepipe's and the paper's way (`paper_training.py`). Timed are sampling,
rewards by an entailment model, scoring (log-probabilities and values) and the update. What both
compute is compared too: rewards, log-probabilities, values, losses and gradients have to agree up
to rounding.

This is the size of the miniature, on a CPU; `gpu.py` does the same at seven billion parameters.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from common import (
    BASE,
    DATASETS,
    Clock,
    Ratio,
    Report,
    argument_parser,
    verdict,
)
from entailment import OneByOne, labelled_pairs, make_trained
from odd_answers import taught_examples
from paper_training import PaperPPO, Rows, sft_gradients

from citepipe.data.example import Example
from citepipe.data.files import write_examples
from citepipe.generate.completion import Generator
from citepipe.generate.engine import HuggingFaceGenerator
from citepipe.generate.text import Detokenizer
from citepipe.models.encode import encode_prompt
from citepipe.models.load import computing, load_tokenizer
from citepipe.options import (
    AdapterOptions,
    MiniatureOptions,
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
from citepipe.verify.base import Verifier
from citepipe.verify.load import load_verifier

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PARTS = ("sampling", "rewards", "scoring", "update")
MINIATURE_MODEL = ModelOptions(
    base=str(BASE), dtype="float32", adapter=AdapterOptions(r=16, alpha=32, dropout=0.0)
)
PROMPT = MiniatureOptions().prompt
MAX_ANSWER = 64
"""Tokens, as `config.yaml` has it for the miniature; the paper's are 1,200 and 200."""
_MAX_PROMPT = 160
_QUESTIONS = 200
"""Of each data set."""
_VERIFIER_STEPS = 400
_BAR = 4.0
_ROUNDING = 1e-3
"""Relative; in 32 bits, passes of other shapes sum in another order."""


class PPOComparison:
    """A step of PPO, ours and the paper's way, on the same models.

    Args:
        model: the base model.
        actor: policy, reference and value model.
        tokenizer: the base model's.
        options: how PPO is done by both.
        verifier: finds rewards our way.
        one_by_one: the same, queried the paper's way.
        examples: questions.
        prompt: how they are put.
        max_prompt: tokens that the paper's way pads prompts to.

    Attributes:
        generator: samples our way; may be replaced.
        clocks: seconds of each way.
    """

    def __init__(
        self,
        model: ModelOptions,
        actor: ActorCritic,
        tokenizer: PreTrainedTokenizerBase,
        options: PPOOptions,
        verifier: Verifier,
        one_by_one: OneByOne,
        examples: Sequence[Example],
        prompt: PromptOptions,
        max_prompt: int,
    ) -> None:
        self.model, self.actor, self.options = model, actor, options
        self.examples, self.one_by_one = examples, one_by_one
        self.prompts = [encode_prompt(e, prompt, tokenizer).token_ids for e in examples]
        self.device = str(actor.model.device)
        self.clocks = {name: Clock(self.device) for name in ("ours", "paper")}
        rows = options.prompts_per_step * options.samples_per_prompt
        self.generator: Generator = HuggingFaceGenerator(actor.model, tokenizer, rows)
        timed = self.clocks["ours"].timed
        rewarder = Rewarder(verifier, RewardOptions(), None)
        pad_id = int(tokenizer.pad_token_id)
        self._learner = Learner(
            "ppo",
            options,
            "fine_grained",
            actor,
            SimpleNamespace(
                generate=timed("sampling", lambda *a: list(self.generator.generate(*a)))
            ),
            SimpleNamespace(spans=timed("rewards", rewarder.spans)),
            pad_id,
            seed=0,
        )
        self._optimizer = self._learner.optimizer
        # Every round is to start from the same weights; a step of size 0 costs what any does.
        for group in self._optimizer.param_groups:
            group["lr"] = 0.0
        assert actor.head is not None
        # An answer ends with the end of sequence, or any token with a newline in it.
        detokenizer = Detokenizer(tokenizer)
        ends = [i for i in range(len(tokenizer)) if "\n" in detokenizer.pieces(i)[0]]
        self.paper = PaperPPO(
            actor.model,
            actor.using,  # type: ignore[arg-type]
            actor.head,
            pad_id,
            [int(tokenizer.eos_token_id), *ends],
            max_prompt,
            options.max_new_tokens,
        )

    def ours(self, round_: int) -> tuple[Rollout, Targets]:
        """A step our way."""
        clock, chosen = self.clocks["ours"], self._questions(round_)
        with clock.timing("step"):
            with computing(self.model):
                rollout = self._learner.collect(
                    [self.examples[i] for i in chosen],
                    [self.prompts[i] for i in chosen],
                    f"round {round_}",
                )
            with clock.timing("update"):
                targets = METHODS["ppo"].targets(rollout, self.options, self.options.kl_coef, True)
                self._update(rollout, targets)
        seconds = clock.seconds
        others = sum(seconds[part][-1] for part in ("sampling", "rewards", "update"))
        seconds.setdefault("scoring", []).append(seconds["step"][-1] - others)
        return rollout, targets

    def paper_way(self, round_: int, rollout: Rollout, targets: Targets) -> None:
        """A step the paper's way: it samples answers of its own, and goes on with ours."""
        clock, options = self.clocks["paper"], self.options
        prompts = [self.prompts[i] for i in self._questions(round_)]
        with clock.timing("sampling"):
            self.paper.sample(
                prompts, options.samples_per_prompt, options.temperature, options.top_k
            )
        with clock.timing("rewards"):
            self.paper_rewards(round_, rollout)
        if self.one_by_one.queried:
            share = self.one_by_one.computed / len(self.one_by_one.queried)
            clock.seconds["rewards"][-1] /= share
        with clock.timing("scoring"):
            rows = self._rows(rollout)
            self.paper.score(rows)
        with clock.timing("update"):
            self._paper_gradients(rows, targets)
            self._optimizer.step()
        seconds = clock.seconds
        seconds.setdefault("step", []).append(sum(seconds[part][-1] for part in PARTS))

    def paper_rewards(self, round_: int, rollout: Rollout) -> list[dict[str, float]]:
        """Per answer the sum of each reward, the verifier queried the paper's way."""
        count = self.options.samples_per_prompt
        owners = [self.examples[i] for i in self._questions(round_) for _ in range(count)]
        texts = [sample.text for sample in rollout.samples]
        return Rewarder(self.one_by_one, RewardOptions()).reward(owners, texts)

    def differences(self, round_: int) -> dict[str, float]:
        """How far both ways are apart in what they compute, relative to the size of the numbers."""
        rollout, targets = self.ours(round_)
        rows = self._rows(rollout)
        scores = (scored.cpu() for scored in self.paper.score(rows))
        names = ("log-probabilities", "reference's", "values")
        own = (rollout.log_probs, rollout.reference_log_probs, rollout.values)
        apart = {
            name: _relative(their[:, : our.shape[1]], our)
            for name, their, our in zip(names, scores, own, strict=True)
            if our is not None
        }
        # Targets apart from what the models compute now, so that ratio and clipping count.
        generator = torch.Generator().manual_seed(0)
        moved = targets._replace(
            log_probs=_moved(targets.log_probs, generator),
            values=_moved(targets.values, generator),
        )
        losses = self._update(rollout, moved)
        gradients = self._gradients()
        paper_losses = self._paper_gradients(rows, moved)
        for name, loss in zip(("policy", "value"), paper_losses, strict=True):
            apart[f"{name} loss"] = abs(loss - losses[f"{name}_loss"]) / abs(loss)
        for name, gradient in self._gradients().items():
            apart[f"{name} gradient"] = _relative(gradient, gradients[name])
        rewards = self.paper_rewards(round_, rollout)
        apart["rewards"] = max(
            abs(sum(sample.totals.values()) - sum(theirs.values()))
            for sample, theirs in zip(rollout.samples, rewards, strict=True)
        )
        return apart

    def _update(self, rollout: Rollout, targets: Targets) -> dict[str, float]:
        """Our optimizer step on a whole rollout."""
        return self._learner.update(rollout, targets, range(self.options.prompts_per_step))

    def _rows(self, rollout: Rollout) -> Rows:
        """The rollout's answers as the paper's way lays them out."""
        return self.paper.rows([sample.row for sample in rollout.samples])

    def _paper_gradients(self, rows: Rows, targets: Targets) -> tuple[float, float]:
        """Gradients of a whole rollout the paper's way; policy and value loss."""
        self._optimizer.zero_grad(set_to_none=True)
        options = self.options
        return self.paper.gradients(rows, targets, options.clip_ratio, options.clip_value)

    def _gradients(self) -> dict[str, torch.Tensor]:
        """All gradients of the policy, and of the value model, each in one row."""
        models = {"policy": self.actor.policy_parameters(), "value": self.actor.value_parameters()}
        return {
            name: torch.cat([p.grad.flatten() for p in own.values() if p.grad is not None])
            for name, own in models.items()
        }

    def _questions(self, round_: int) -> list[int]:
        count = self.options.prompts_per_step
        return [(round_ * count + i) % len(self.prompts) for i in range(count)]


class SFTComparison:
    """A step of supervised fine-tuning, ours and the paper's way, on the same model.

    Args:
        model: the base model.
        start: the adapter that learns, or None for a new one.
        tokenizer: the base model's.
        examples: the answers of one optimizer step.
        prompt: how questions are put.
        limits: tokens that a prompt and an answer may have.
        folder: for the run's state.
    """

    def __init__(
        self,
        model: ModelOptions,
        start: Path | None,
        tokenizer: PreTrainedTokenizerBase,
        examples: Sequence[Example],
        prompt: PromptOptions,
        limits: tuple[int, int],
        folder: Path,
    ) -> None:
        self.longest = sum(limits)
        items = sft.encode_examples(examples, prompt, tokenizer, limits[1])
        options = SFTOptions(max_steps=1, batch_size=len(items))
        trainer = sft.Trainer("sft", _job(model, folder, start), options, sft.losses, tokenizer)
        self.learner = trainer.model
        self.learner.train()
        self.learning = [p for p in self.learner.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(self.learning, lr=0.0)
        self.rows = [item.rows[0] for item in items]
        self.tokens = sum(len(row.prompt) + len(row.answer) for row in self.rows)
        self.clock = Clock(str(next(self.learner.parameters()).device))
        pad_id = int(tokenizer.pad_token_id)

        def paper(rows_at_once: int, length: int | None) -> float:
            with computing(model):
                return sft_gradients(self.learner, self.rows, pad_id, rows_at_once, length)

        # Each computes gradients, and gives the loss.
        self.ways: dict[str, Callable[[], float]] = {
            "ours": lambda: trainer.learn(items, 1)["loss"],
            "paper's script: 2 rows a pass, as long as the longer": lambda: paper(2, None),
            "as its RL trains: 1 row a pass, as long as any may be": lambda: paper(1, self.longest),
        }

    def step(self, name: str) -> None:
        """A step one of the `ways`."""
        self._optimizer.zero_grad(set_to_none=True)
        self.ways[name]()
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        self._optimizer.step()

    def differences(self) -> dict[str, float]:
        """How far the others' loss and gradient are from ours, relatively."""
        found = {}
        for name, way in self.ways.items():
            self._optimizer.zero_grad(set_to_none=True)
            loss = torch.tensor(way())
            gradient = torch.cat([p.grad.flatten() for p in self.learning if p.grad is not None])
            found[name] = loss, gradient
        ours = found.pop("ours")
        return {
            f"{what} ({name.partition(':')[0]})": _relative(their, our)
            for name, theirs in found.items()
            for what, their, our in zip(("loss", "gradient"), theirs, ours, strict=True)
        }


def tell_step(comparison: PPOComparison, rollout: Rollout, report: Report) -> None:
    """Report the parts of a step of PPO."""
    ours, paper = comparison.clocks["ours"], comparison.clocks["paper"]
    count, samples = comparison.options.samples_per_prompt, rollout.samples
    answers = sum(len(sample.row.answer) for sample in samples)
    needed = answers + sum(len(sample.row.prompt) for sample in samples[::count])
    padded = len(samples) * (comparison.paper.max_prompt + comparison.paper.max_answer)
    report(
        f"  {len(samples)} answers of {answers / len(samples):.0f} tokens; a pass reads "
        f"{needed} tokens in ours, {padded} in the paper's way"
    )
    report(f"  {'':<10}{'ours':>10}{'paper':>10}  ratio")
    for part in (*PARTS, "step"):
        ratio = Ratio.of(paper.seconds[part], ours.seconds[part])
        report(f"  {part:<10}{ours.median(part):>8.3f} s{paper.median(part):>8.3f} s  {ratio}")
    training = [sum(clock.median(part) for part in PARTS[1:]) for clock in (paper, ours)]
    report(
        f"  a step: {ratio.middle:.1f} times as quick, without sampling "
        f"{training[0] / training[1]:.1f}; bar {_BAR:g}, {verdict(ratio.middle >= _BAR)}"
    )


def compare_ppo(comparison: PPOComparison, rounds: int, report: Report) -> int:
    """Steps of PPO by turns, after one that is looked at for differences; how many there are."""
    apart = comparison.differences(0)
    for clock in comparison.clocks.values():
        clock.seconds.clear()
    for round_ in range(1, rounds + 1):
        rollout, targets = comparison.ours(round_)
        comparison.paper_way(round_, rollout, targets)
    tell_step(comparison, rollout, report)
    return _tell_differences(apart, report)


def compare_sft(comparison: SFTComparison, rounds: int, report: Report) -> int:
    """Steps of supervised fine-tuning by turns; how many quantities differ."""
    apart = comparison.differences()
    clock, count = comparison.clock, len(comparison.rows)
    ways = {name: lambda name=name: comparison.step(name) for name in comparison.ways}
    clock.turns(ways, rounds, warm_up=False)
    report(
        f"  {count} answers, with their prompts {comparison.tokens / count:.0f} tokens; padded to "
        f"{comparison.longest}: {count * comparison.longest / comparison.tokens:.1f} times as many"
    )
    for name in comparison.ways:
        ratio = Ratio.of(clock.seconds[name], clock.seconds["ours"])
        times = "" if name == "ours" else f"  {ratio} as long"
        report(f"  {name:<56}{clock.median(name):>8.3f} s{times}")
    report(f"  bar {_BAR:g} against the last, {verdict(ratio.middle >= _BAR)}")
    return _tell_differences(apart, report)


def load_actor(model: ModelOptions, start: Path) -> ActorCritic:
    """Policy, reference and value model, all as the adapter at `start`; the value's head is random,
    for at zero, where it begins in earnest, its adapter would have no gradient."""
    actor = ActorCritic(model, start, with_values=True)
    assert actor.head is not None
    torch.manual_seed(0)
    torch.nn.init.normal_(actor.head.weight, std=0.02)
    return actor


def train_start(folder: Path, learnt: list[Example], dev: list[Example], steps: int) -> Path:
    """An adapter of the miniature's base model that answers and cites."""
    write_examples(folder / "train.json", learnt)
    write_examples(folder / "dev.json", dev)
    options = SFTOptions(
        max_steps=steps,
        batch_size=32,
        learning_rate=3e-3,
        max_grad_norm=1.0,
        max_output_tokens=MAX_ANSWER,
        evaluations=1,
    )
    job = _job(MINIATURE_MODEL, folder / "start", None)
    sft.run(job, folder / "train.json", folder / "dev.json", options)
    return folder / "start"


def _job(model: ModelOptions, out: Path, start: Path | None) -> Job:
    state = out.with_name(f"{out.name}-state")
    return Job(
        model=model, prompt=PROMPT, start=start, out=out, state=state, fingerprint="", seed=0,
        threads=torch.get_num_threads(),
    )  # fmt: skip


def _moved(tensor: Any, generator: torch.Generator) -> torch.Tensor:
    return tensor + 0.1 * torch.randn(tensor.shape, generator=generator) * (tensor != 0)


def _relative(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    return float((theirs - ours).norm() / theirs.norm().clamp(min=1e-30))


def _tell_differences(apart: Mapping[str, float], report: Report) -> int:
    """How far both ways are apart; how many quantities are further than rounding."""
    report("  apart, relatively: " + ", ".join(f"{n} {v:.0e}" for n, v in apart.items()))
    return sum(value > _ROUNDING for value in apart.values())


def main() -> int:
    parser = argument_parser(__doc__, "train.txt")
    parser.add_argument("--rounds", type=int, default=5, help="steps of each, by turns")
    parser.add_argument("--sft-steps", type=int, default=100, help="that make the start")
    arguments = parser.parse_args()
    report = Report(arguments.out, "torch", "transformers", "peft")
    rounds = arguments.rounds
    tokenizer = load_tokenizer(MINIATURE_MODEL)
    examples = [e for name in DATASETS for e in taught_examples(name, _QUESTIONS, seed=7)]
    random.Random(0).shuffle(examples)
    learnt, queried = examples[: len(examples) // 2], examples[len(examples) // 2 :]
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = train_start(folder, learnt, queried[:32], arguments.sft_steps)
        entailment, _ = make_trained(folder / "true", labelled_pairs(examples), _VERIFIER_STEPS)
        for told, questions in (("as few as the paper's", 2), ("as many as the miniature's", 16)):
            options = PPOOptions(
                prompts_per_step=questions,
                samples_per_prompt=4,
                temperature=1.0,
                top_k=0,
                max_new_tokens=MAX_ANSWER,
                # Gradients are compared as they are.
                max_grad_norm=1e9,
            )
            report(f"\nPPO, {told}: {questions} questions, 4 answers each")
            comparison = PPOComparison(
                MINIATURE_MODEL,
                load_actor(MINIATURE_MODEL, start),
                tokenizer,
                options,
                load_verifier(f"{entailment.directory}?dtype=float32"),
                OneByOne(entailment),
                queried,
                PROMPT,
                _MAX_PROMPT,
            )
            wrong += compare_ppo(comparison, rounds, report)
        report("\nsupervised fine-tuning")
        supervised = SFTComparison(
            MINIATURE_MODEL,
            start,
            tokenizer,
            learnt[:32],
            PROMPT,
            (_MAX_PROMPT, MAX_ANSWER),
            folder / "sft",
        )
        wrong += compare_sft(supervised, rounds, report)
    report(f"\nunexpected differences: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
