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

import random
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from common import Report, argument_parser
from peers import load_fine_grained

from citepipe.train.advantages import generalized_advantages, masked_mean, penalize_kl, whiten
from citepipe.train.losses import policy_loss, value_loss

TOLERANCE = 1e-9
"""In 64 bits, relative to the largest number of theirs, where that is over 1."""
_ROUNDED = 1e-6
"""Where its code itself rounds to 32 bits."""
_EPSILON = 1e-8
"""What both add under the root."""
_PUBLISHED = "as published"
_IN_32_BITS = "micro-batches of 1 / their number"


Compared = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""By function: theirs and ours, which should be equal."""


class Peer(NamedTuple):
    """FineGrainedRLHF's modules."""

    utils: ModuleType
    ppo: ModuleType
    reward: ModuleType


def draw(seed: int, dtype: torch.dtype) -> Any:
    """Random tensors of one rollout, and random hyperparameters; the same numbers in every
    precision, up to rounding.

    Notation: B answers, T columns; all tensors are (B, T). Every answer has 1 to T tokens and
    stands at the left. Rewards are few and on tokens only; values are 0 on padding, as
    FineGrainedRLHF leaves them; `new` are those of the models in training.
    """
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
    return SimpleNamespace(
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


def main() -> int:
    parser = argument_parser(__doc__, "training_parity.txt")
    parser.add_argument(
        "--fgrlhf", type=Path, required=True, help="a copy of allenai/FineGrainedRLHF"
    )
    parser.add_argument("--cases", type=int, default=3000, help="rollouts drawn per precision")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = Peer(*load_fine_grained(arguments.fgrlhf))
    report = Report(arguments.out, "torch")
    report(
        f"{arguments.cases} random rollouts per precision: 1 to 8 answers of 1 to 40 tokens, "
        "random hyperparameters"
    )
    report(
        f"equal: largest difference in 64 bits within {TOLERANCE:g} of the size of the numbers "
        f"({_ROUNDED:g} for micro-batches, whose weights it rounds to 32 bits)\n"
    )
    exact, rounded = (
        survey(peer, arguments.cases, dtype) for dtype in (torch.float64, torch.float32)
    )
    report(f"{'':<58}{'64 bits':>10}{'32 bits':>10}")
    failures = 0
    for name, largest in exact.items():
        meant = name.endswith(_PUBLISHED)
        equal = largest <= (_ROUNDED if name.endswith(_IN_32_BITS) else TOLERANCE)
        failures += equal if meant else not equal
        verdict = "equal" if equal else "DIFFERENT"
        if meant:
            verdict = "differs, as it should" if not equal else "EQUAL, which it should not be"
        report(f"{name:<58}{largest:>10.1e}{rounded[name]:>10.1e}  {verdict}")
    report(f"\nunexpected: {failures}")
    return 1 if failures else 0


def survey(peer: Peer, cases: int, dtype: torch.dtype) -> dict[str, float]:
    """The largest relative difference by function over the cases of seeds 0, 1, ..."""
    largest: dict[str, float] = {}
    for seed in range(cases):
        case = draw(seed, dtype)
        for compare in (_whitening, _penalty, _advantages, _losses):
            for name, (theirs, ours) in compare(peer, case).items():
                size = max(1.0, float(theirs.abs().max()))
                difference = float((theirs - ours).abs().max()) / size
                largest[name] = max(largest.get(name, 0.0), difference)
    return largest


def _whitening(peer: Peer, case: Any) -> Compared:
    mean = peer.utils.reduce_mean(case.advantages, case.mask)
    found: Compared = {"masked mean": (mean, masked_mean(case.advantages, case.mask))}
    for shift in (True, False):
        name = "whitening" if shift else "whitening, mean kept"
        ours = whiten(case.advantages, case.mask, "zero" if shift else "keep")
        faulty = peer.utils.whiten(case.advantages, case.mask, shift_mean=shift) * case.mask
        with patch.object(peer.utils, "reduce_std", peer.utils.reduce_var):
            corrected = peer.utils.whiten(case.advantages, case.mask, shift_mean=shift) * case.mask
        # The fault and nothing else: divided once more by the root of the deviation it is ours.
        deviation = peer.utils.reduce_std(case.advantages, case.mask)
        root = torch.sqrt((deviation**2 + _EPSILON) / (deviation + _EPSILON))
        kept = 0.0 if shift else mean
        rescaled = ((faulty - kept) / root + kept) * case.mask
        found[f"{name}, {_PUBLISHED}"] = faulty, ours
        found[f"{name}, deviation corrected"] = corrected, ours
        found[f"{name}, that / root of the deviation"] = rescaled, ours
    return found


def _penalty(peer: Peer, case: Any) -> Compared:
    lengths = case.mask.sum(dim=1).long().tolist()
    rows = [row[:length].tolist() for row, length in zip(case.rewards, lengths, strict=True)]
    results: dict[str, Any] = {
        "generated_logprobs": case.log_probs,
        "generated_ref_logprobs": case.reference,
        "generated_attention_mask": case.mask,
        "rewards/raw": rows,
    }
    peer.reward.BasicReward.kl_penalize_reward(SimpleNamespace(kl_coef=case.kl), results)
    ours = penalize_kl(case.rewards, case.log_probs, case.reference, case.mask, case.kl)
    # Its rewards come as lists and become 32 bits.
    exact = case.rewards.float().to(case.rewards.dtype) - case.rewards
    return {"KL penalty": (results["rewards/penalized"], ours + exact)}


def _advantages(peer: Peer, case: Any) -> Compared:
    plain, returns = generalized_advantages(
        case.rewards, case.values, case.mask, case.gamma, case.lam
    )
    rewards = whiten(case.rewards, case.mask, "keep")
    _, of_whitened = generalized_advantages(rewards, case.values, case.mask, case.gamma, case.lam)
    own = peer.ppo.whiten

    def masked(values: torch.Tensor, masks: torch.Tensor, **rest: Any) -> torch.Tensor:
        whitened: torch.Tensor = own(values, masks, **rest) * masks
        return whitened

    # Its `whiten` takes the root of what `reduce_std` gives; let that be the variance.
    with patch.object(peer.utils, "reduce_std", peer.utils.reduce_var):
        theirs_returns, whitened = _their_advantages(peer, case, whiten_rewards=False)
        leaking, _ = _their_advantages(peer, case, whiten_rewards=True)
        with patch.object(peer.ppo, "whiten", masked):
            clean, _ = _their_advantages(peer, case, whiten_rewards=True)
    longest = case.mask.sum(dim=1) == case.mask.sum(dim=1).max()
    name = "GAE on whitened rewards"
    return {
        "GAE: returns": (theirs_returns, returns),
        "GAE: advantages, whitened, deviation corrected": (whitened, whiten(plain, case.mask)),
        f"{name}: returns, {_PUBLISHED}": (leaking, of_whitened),
        f"{name}: returns, padding at 0": (clean, of_whitened),
        f"{name}: the longest answers": (leaking[longest], of_whitened[longest]),
    }


def _losses(peer: Peer, case: Any) -> Compared:
    rows = len(case.mask)
    whole = _their_losses(peer, case, micro_batch=rows)
    single = _their_losses(peer, case, micro_batch=1)
    ours = _our_losses(case)
    names = ("policy loss", "value loss", "policy loss: gradient", "value loss: gradient")
    found: Compared = {}
    for name, theirs, own, each in zip(names, whole, ours, single, strict=True):
        found[name] = theirs, own
        found[f"{name}, {_IN_32_BITS}"] = each / rows, own
    return found


def _their_advantages(
    peer: Peer, case: Any, whiten_rewards: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns and whitened advantages, 0 on padding."""
    results = {
        "generated_value": case.values,
        "rewards/penalized": case.rewards,
        "generated_attention_mask": case.mask.long(),
    }
    options = {"whiten_rewards": whiten_rewards, "gamma": case.gamma, "lam": case.lam}
    trainer = SimpleNamespace(args={"ppo": options}, accelerator=None)
    peer.ppo.PPOTrainer.compute_advantages(trainer, results, 1)
    return results["returns"] * case.mask, results["whitened_advantages"] * case.mask


def _their_losses(peer: Peer, case: Any, micro_batch: int) -> tuple[torch.Tensor, ...]:
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
    clips = {"cliprange": case.clip, "cliprange_value": case.clip_value}
    settings = {
        "ppo": {**clips, "pg_coef": 1.0, "vf_coef": 1.0},
        "model": {"value_model": {"policy_value_sharing": False}},
    }
    unused = dict.fromkeys(("prompts_input_ids", "prompts_attention_mask", "generated_input_ids"))
    for start in range(0, len(case.mask), micro_batch):
        rows = slice(start, start + micro_batch)
        # Its loss multiplies the values in place, which a leaf does not allow.
        outputs = {
            "generated_logprobs": log_probs[rows],
            "generated_value": values[rows] * 1,
        }
        model = SimpleNamespace(forward_pass=lambda outputs=outputs, **_: outputs)
        trainer = SimpleNamespace(args=settings, policy_model=model, value_model=model)
        results: dict[str, Any] = unused | {name: t[rows] for name, t in everything.items()}
        peer.ppo.PPOTrainer.loss(trainer, results, tokens_per_row)
        results["loss/total"].backward()
        total += torch.stack([results["loss/policy"], results["loss/value"]]).detach()
    return total[0], total[1], log_probs.grad, values.grad


def _our_losses(case: Any) -> tuple[torch.Tensor, ...]:
    log_probs = case.new_log_probs.clone().requires_grad_()
    values = case.new_values.clone().requires_grad_()
    tokens = float(case.mask.sum())
    policy, _ = policy_loss(
        log_probs, case.log_probs, case.advantages, case.mask, case.clip, tokens
    )
    value = value_loss(values, case.values, case.returns, case.mask, case.clip_value, tokens)
    (policy + value).backward()
    return policy.detach(), value.detach(), log_probs.grad, values.grad


if __name__ == "__main__":
    raise SystemExit(main())
