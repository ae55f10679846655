"""Reinforcement learning with rewards on tokens."""

from typing import Literal

from pydantic import Field

from citepipe.options.training import TrainingOptions


class RLOptions(TrainingOptions):
    """What all methods that learn from their own samples share."""

    episodes: int = Field(48_000, ge=1, description="Answers sampled over the whole run.")
    prompts_per_step: int = Field(2, ge=1, description="Questions per rollout, over all devices.")
    samples_per_prompt: int = Field(4, ge=1, description="Answers sampled per question.")
    epochs_per_rollout: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(1, ge=1, description="Optimizer steps per pass over a rollout.")
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate of the policy.")
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up (optimizer steps).")
    max_grad_norm: float = Field(0.5, gt=0, description="Gradient clipping (norm).")
    clip_ratio: float = Field(0.2, gt=0, description="Clip of the probability ratio.")
    kl_coef: float = Field(
        0.3, ge=0, description="Weight of the per-token KL penalty against the starting model."
    )
    kl_target: float | None = Field(
        None,
        gt=0,
        description="Moves kl_coef so that the KL per answer becomes this (nats); null keeps it.",
    )
    kl_horizon: int = Field(
        10_000, ge=1, description="Answers over which kl_coef is moved; more moves it less."
    )
    max_kl: float = Field(
        100.0, gt=0, description="The run stops when the KL of a rollout exceeds this (nats)."
    )
    temperature: float = Field(0.7, gt=0)
    top_k: int = Field(20, ge=0, description="Sample among the k likeliest tokens; 0 for all.")
    max_new_tokens: int = Field(200, ge=1)
    batch_size: int = Field(
        32, ge=1, description="Sequences generated at once, fewer when memory runs out."
    )
    evaluations: int = Field(
        10, ge=1, description="How often, over the run, dev answers are generated and rewarded."
    )
    dev_questions: int = Field(100, ge=1, description="Dev questions per evaluation.")
    save_every: int = Field(10, ge=1, description="Rollouts between two saves of the state.")


class PPOOptions(RLOptions):
    """Token-level PPO (FineGrainedRLHF), against the model that training starts from."""

    value: Literal["adapter", "shared", "full"] | None = Field(
        None,
        description="The value model: an adapter of its own on the policy's base, a head on the "
        "policy's own states, or a model of its own; null: adapter, or shared where all weights "
        "are trained.",
    )
    value_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the value model; null for the policy's."
    )
    value_warmup: int = Field(
        0,
        ge=0,
        description="Rollouts in which only the value model learns. Until it knows something, the "
        "advantages of fine-grained rewards count the last tokens of an answer for little.",
    )
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalized advantage estimation.")
    clip_value: float = Field(0.2, gt=0, description="Clip of the value's change.")
    value_coef: float = Field(1.0, ge=0, description="Weight of the value loss.")
    whiten_rewards: bool = Field(True, description="Divide rewards by their standard deviation.")
    whiten_advantages: bool = Field(True, description="Standardize advantages over the rollout.")


class GroupOptions(RLOptions):
    """Methods without a value model, which compare the answers to a question with each other."""

    prompts_per_step: int = Field(4, ge=1, description="Questions per rollout, over all devices.")
    samples_per_prompt: int = Field(8, ge=2, description="Answers sampled per question.")
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0, description="Sample among the k likeliest tokens; 0 for all.")


class GRPOOptions(GroupOptions):
    """Group relative policy optimization (DeepSeekMath, arXiv 2402.03300)."""

    kl_coef: float = Field(
        0.04, ge=0, description="Weight of the KL divergence from the starting model, in the loss."
    )


class RLOOOptions(GroupOptions):
    """REINFORCE with a leave-one-out baseline (Ahmadian et al. 2024, arXiv 2402.14740)."""

    kl_coef: float = Field(
        0.05, ge=0, description="Weight of the per-token KL penalty against the starting model."
    )
