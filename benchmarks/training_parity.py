"""Are the pure functions of PPO those of FineGrainedRLHF? On random tensors, by its own code.

    python benchmarks/training_parity.py --fgrlhf FineGrainedRLHF

FineGrainedRLHF's functions run as they were fetched; those that are methods get a stand-in for
`self` with no more than what they read. Compared are values and gradients in 64 bits, so that a
difference in formula cannot hide behind rounding, and in 32 bits for the rounding itself. Where the
two are meant to differ, the difference is shown apart, and it is checked that nothing else differs:

- its `whiten` divides by the square root of the standard deviation. It is run as published, and
  with its own variance in the place of its standard deviation;
- whitened rewards without shifted mean are not 0 on its padding, and run from there into the
  advantages of every answer that is not the longest. It is run as published, and with its padding
  set to 0;
- its losses of micro-batches add up to the loss of the minibatch times the number of micro-batches.
"""

from __future__ import annotations

import argparse
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch
from machine import RESULTS, Report

from citepipe.train.advantages import generalized_advantages, masked_mean, penalize_kl, whiten
from citepipe.train.losses import policy_loss, value_loss

TOLERANCE = 1e-9
"""In 64 bits, relative to the largest number of theirs, where that is over 1."""
_ROUNDED = 1e-6
"""Where its code itself rounds to 32 bits."""
_EPSILON = 1e-8
"""What both add under the root."""
_PUBLISHED = "as published"
_IN_32_BITS = "losses of micro-batches of 1 / their number"


class Peer(NamedTuple):
    """FineGrainedRLHF's modules `fgrlhf.utils`, `fgrlhf.ppo` and `fgrlhf.reward`."""

    utils: ModuleType
    ppo: ModuleType
    reward: ModuleType


@dataclass
class Case:
    """Random tensors of one rollout and random hyperparameters.

    Notation: B answers, T columns; every answer has 1 to T tokens and stands at the left.

    Attributes:
        mask: (B, T), 1 on tokens.
        rewards: (B, T), few and on tokens only, as rewards are.
        log_probs: (B, T), of the policy that sampled.
        reference: (B, T), log-probabilities under the reference.
        new_log_probs: (B, T), of the policy in training.
        values: (B, T), when sampled, 0 on padding as FineGrainedRLHF leaves them.
        new_values: (B, T), of the value model in training.
        advantages: (B, T), any.
        returns: (B, T), any.
        gamma, lam, kl, clip, clip_value: hyperparameters.
    """

    mask: torch.Tensor
    rewards: torch.Tensor
    log_probs: torch.Tensor
    reference: torch.Tensor
    new_log_probs: torch.Tensor
    values: torch.Tensor
    new_values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    gamma: float
    lam: float
    kl: float
    clip: float
    clip_value: float

    @classmethod
    def draw(cls, seed: int, dtype: torch.dtype) -> Case:
        """The case of a seed; the numbers are the same in every precision, up to rounding."""
        rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
        rows, columns = rng.randint(1, 8), rng.randint(2, 40)
        lengths = torch.tensor([rng.randint(1, columns) for _ in range(rows)])
        if rows == 1:
            # One token alone has no standard deviation.
            lengths = lengths.clamp(min=2)
        mask = (torch.arange(columns)[None] < lengths[:, None]).to(dtype)

        def normal(scale: float) -> torch.Tensor:
            drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
            return (scale * drawn).to(dtype)

        where = torch.rand(rows, columns, generator=generator, dtype=torch.float64) < 0.2
        where[0, 0] = True
        log_probs = -normal(rng.choice([0.5, 2.0])).abs()
        values = normal(rng.choice([0.1, 1.0])) * mask
        return cls(
            mask=mask,
            rewards=normal(0.2) * where.to(dtype) * mask,
            log_probs=log_probs,
            reference=log_probs + normal(rng.choice([0.01, 0.5])),
            new_log_probs=log_probs + normal(rng.choice([0.05, 0.5])),
            values=values,
            new_values=values + normal(rng.choice([0.1, 0.6])),
            advantages=normal(1.0),
            returns=normal(1.0),
            gamma=rng.choice([1.0, rng.uniform(0.8, 1.0)]),
            lam=rng.choice([0.0, 0.95, 1.0, rng.random()]),
            kl=rng.choice([0.0, 0.3, rng.random()]),
            clip=rng.uniform(0.05, 0.5),
            clip_value=rng.uniform(0.05, 0.5),
        )


Compared = dict[str, list[tuple[torch.Tensor, torch.Tensor]]]
"""By function: pairs of theirs and ours that should be equal."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--fgrlhf", type=Path, required=True, help="a copy of allenai/FineGrainedRLHF"
    )
    parser.add_argument("--cases", type=int, default=3000, help="rollouts drawn per precision")
    parser.add_argument("--out", type=Path, default=RESULTS / "training_parity.txt")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = load(arguments.fgrlhf)
    report = Report(arguments.out, "torch")
    report(
        f"{arguments.cases} random rollouts per precision: 1 to 8 answers of 1 to 40 tokens, "
        "random hyperparameters"
    )
    report(
        f"equal: largest difference in 64 bits within {TOLERANCE:g} of the size of the numbers "
        f"({_ROUNDED:g} for micro-batches, whose weights it rounds to 32 bits)"
    )
    report()
    found = {
        dtype: survey(peer, arguments.cases, dtype) for dtype in (torch.float64, torch.float32)
    }
    report(f"{'':<52}{'64 bits':>10}{'32 bits':>10}")
    failures = 0
    for name, largest in found[torch.float64].items():
        meant = name.endswith(_PUBLISHED)
        equal = largest <= (_ROUNDED if name == _IN_32_BITS else TOLERANCE)
        failures += equal if meant else not equal
        verdict = "equal" if equal else "DIFFERENT"
        if meant:
            verdict = "differs, as it should" if not equal else "EQUAL, which it should not be"
        report(f"{name:<52}{largest:>10.1e}{found[torch.float32][name]:>10.1e}  {verdict}")
    report()
    report(f"unexpected: {failures}")
    return 1 if failures else 0


def load(folder: Path) -> Peer:
    """FineGrainedRLHF's modules from a copy; what they import and these functions do not use is
    stood in for if it is not installed."""
    added = [name for name in ("wandb", "yaml", "nltk", "accelerate") if not _installed(name)]
    sys.modules |= {name: ModuleType(name) for name in added}
    sys.path.insert(0, str(folder))
    try:
        return Peer(*(importlib.import_module(f"fgrlhf.{n}") for n in ("utils", "ppo", "reward")))
    finally:
        sys.path.remove(str(folder))
        for name in added:
            del sys.modules[name]


def survey(peer: Peer, cases: int, dtype: torch.dtype) -> dict[str, float]:
    """The largest relative difference by function over the cases of seeds 0, 1, ..."""
    largest: dict[str, float] = {}
    for seed in range(cases):
        case = Case.draw(seed, dtype)
        for compare in (_means, _whitening, _penalty, _advantages, _losses):
            for name, pairs in compare(peer, case).items():
                for theirs, ours in pairs:
                    size = max(1.0, float(theirs.abs().max()))
                    difference = float((theirs - ours).abs().max()) / size
                    largest[name] = max(largest.get(name, 0.0), difference)
    return largest


def _means(peer: Peer, case: Case) -> Compared:
    theirs = peer.utils.reduce_mean(case.advantages, case.mask)
    return {"masked mean": [(theirs, masked_mean(case.advantages, case.mask))]}


def _whitening(peer: Peer, case: Case) -> Compared:
    pairs: Compared = {}
    for shift in (True, False):
        words = "whitening" if shift else "whitening, mean kept"
        ours = whiten(case.advantages, case.mask, shift_mean=shift)
        faulty = peer.utils.whiten(case.advantages, case.mask, shift_mean=shift) * case.mask
        with _deviation_corrected(peer):
            corrected = peer.utils.whiten(case.advantages, case.mask, shift_mean=shift) * case.mask
        # The fault and nothing else: divided once more by the root of the deviation it is ours.
        mean = peer.utils.reduce_mean(case.advantages, case.mask)
        deviation = peer.utils.reduce_std(case.advantages, case.mask)
        root = torch.sqrt((deviation**2 + _EPSILON) / (deviation + _EPSILON))
        kept = 0.0 if shift else mean
        rescaled = ((faulty - kept) / root + kept) * case.mask
        pairs[f"{words}, {_PUBLISHED}"] = [(faulty, ours)]
        pairs[f"{words}, deviation corrected"] = [(corrected, ours)]
        pairs[f"{words}, that / root of the deviation"] = [(rescaled, ours)]
    return pairs


def _penalty(peer: Peer, case: Case) -> Compared:
    lengths = case.mask.sum(dim=1).long().tolist()
    results: dict[str, Any] = {
        "generated_logprobs": case.log_probs,
        "generated_ref_logprobs": case.reference,
        "generated_attention_mask": case.mask,
        "rewards/raw": [
            row[:length].tolist() for row, length in zip(case.rewards, lengths, strict=True)
        ],
    }
    peer.reward.BasicReward.kl_penalize_reward(SimpleNamespace(kl_coef=case.kl), results)
    ours = penalize_kl(case.rewards, case.log_probs, case.reference, case.mask, case.kl)
    # Its rewards come as lists and become 32 bits.
    exact = case.rewards.float().to(case.rewards.dtype) - case.rewards
    return {"KL penalty": [(results["rewards/penalized"], ours + exact)]}


def _advantages(peer: Peer, case: Case) -> Compared:
    pairs: Compared = {}
    plain, returns = generalized_advantages(
        case.rewards, case.values, case.mask, case.gamma, case.lam
    )
    with _deviation_corrected(peer):
        theirs = _their_advantages(peer, case, whiten_rewards=False)
    pairs["GAE: returns"] = [(theirs["returns"] * case.mask, returns)]
    pairs["GAE: advantages, whitened, deviation corrected"] = [
        (theirs["whitened_advantages"] * case.mask, whiten(plain, case.mask))
    ]
    rewards = whiten(case.rewards, case.mask, shift_mean=False)
    _, returns = generalized_advantages(rewards, case.values, case.mask, case.gamma, case.lam)
    with _deviation_corrected(peer):
        leaking = _their_advantages(peer, case, whiten_rewards=True)
        with _zero_on_padding(peer):
            clean = _their_advantages(peer, case, whiten_rewards=True)
    pairs[f"GAE on whitened rewards: returns, {_PUBLISHED}"] = [
        (leaking["returns"] * case.mask, returns)
    ]
    pairs["GAE on whitened rewards: returns, padding at 0"] = [
        (clean["returns"] * case.mask, returns)
    ]
    longest = case.mask.sum(dim=1) == case.mask.sum(dim=1).max()
    pairs["GAE on whitened rewards: the longest answers"] = [
        ((leaking["returns"] * case.mask)[longest], returns[longest])
    ]
    return pairs


def _losses(peer: Peer, case: Case) -> Compared:
    theirs = _their_losses(peer, case, micro_batch=len(case.mask))
    single = _their_losses(peer, case, micro_batch=1)
    ours = _our_losses(case)
    rows = len(case.mask)
    names = ("policy loss", "value loss", "policy loss: gradient", "value loss: gradient")
    pairs: Compared = {
        name: [(their, our)] for name, their, our in zip(names, theirs, ours, strict=True)
    }
    pairs[_IN_32_BITS] = [(their / rows, our) for their, our in zip(single, ours, strict=True)]
    return pairs


def _their_advantages(peer: Peer, case: Case, whiten_rewards: bool) -> dict[str, torch.Tensor]:
    results = {
        "generated_value": case.values,
        "rewards/penalized": case.rewards,
        "generated_attention_mask": case.mask.long(),
    }
    options = {"whiten_rewards": whiten_rewards, "gamma": case.gamma, "lam": case.lam}
    trainer = SimpleNamespace(args={"ppo": options}, accelerator=None)
    peer.ppo.PPOTrainer.compute_advantages(trainer, results, 1)
    return results


def _their_losses(peer: Peer, case: Case, micro_batch: int) -> tuple[torch.Tensor, ...]:
    """Policy loss, value loss and their gradients, summed over micro-batches as its `train` does.

    Its models are stood in for by the tensors that they would give back.
    """
    log_probs = case.new_log_probs.clone().requires_grad_()
    values = case.new_values.clone().requires_grad_()
    total = torch.zeros(2, dtype=case.mask.dtype)
    everything = {
        "generated_value": case.values,
        "generated_logprobs": case.log_probs,
        "generated_attention_mask": case.mask,
        "whitened_advantages": case.advantages,
        "returns": case.returns,
    }
    tokens_per_row = case.mask.sum(dim=1).float().mean().item()
    unused = dict.fromkeys(("prompts_input_ids", "prompts_attention_mask", "generated_input_ids"))
    for start in range(0, len(case.mask), micro_batch):
        rows = slice(start, start + micro_batch)
        trainer = SimpleNamespace(
            args={
                "ppo": {
                    "cliprange": case.clip,
                    "cliprange_value": case.clip_value,
                    "pg_coef": 1.0,
                    "vf_coef": 1.0,
                },
                "model": {"value_model": {"policy_value_sharing": False}},
            },
            policy_model=_returns(generated_logprobs=log_probs[rows]),
            # Its loss multiplies the values in place, which a leaf does not allow.
            value_model=_returns(generated_value=values[rows] * 1),
        )
        results: dict[str, Any] = unused | {name: t[rows] for name, t in everything.items()}
        peer.ppo.PPOTrainer.loss(trainer, results, tokens_per_row)
        results["loss/total"].backward()
        total += torch.stack([results["loss/policy"], results["loss/value"]]).detach()
    assert log_probs.grad is not None
    assert values.grad is not None
    return total[0], total[1], log_probs.grad, values.grad


def _our_losses(case: Case) -> tuple[torch.Tensor, ...]:
    log_probs = case.new_log_probs.clone().requires_grad_()
    values = case.new_values.clone().requires_grad_()
    tokens = float(case.mask.sum())
    policy, _ = policy_loss(
        log_probs, case.log_probs, case.advantages, case.mask, case.clip, tokens
    )
    value = value_loss(values, case.values, case.returns, case.mask, case.clip_value, tokens)
    (policy + value).backward()
    assert log_probs.grad is not None
    assert values.grad is not None
    return policy.detach(), value.detach(), log_probs.grad, values.grad


def _returns(**tensors: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(forward_pass=lambda **_: tensors)


@contextmanager
def _deviation_corrected(peer: Peer) -> Iterator[None]:
    """Its `whiten` takes the root of what `reduce_std` gives; let that be the variance."""
    with _replaced(peer.utils, "reduce_std", peer.utils.reduce_var):
        yield


@contextmanager
def _zero_on_padding(peer: Peer) -> Iterator[None]:
    own = peer.ppo.whiten

    def masked(values: torch.Tensor, masks: torch.Tensor, **rest: Any) -> torch.Tensor:
        whitened: torch.Tensor = own(values, masks, **rest) * masks
        return whitened

    with _replaced(peer.ppo, "whiten", masked):
        yield


@contextmanager
def _replaced(module: ModuleType, name: str, function: Callable[..., Any]) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, before)


def _installed(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


if __name__ == "__main__":
    raise SystemExit(main())
