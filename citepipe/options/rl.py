"""Proximal policy optimization with rewards on tokens."""

from pydantic import Field

from citepipe.options.base import Options


class PPOOptions(Options):
    """Token-level PPO (FineGrainedRLHF), against the adapter that training starts from."""

    episodes: int = Field(48_000, ge=1, description="Answers sampled over the whole run.")
    prompts_per_step: int = Field(2, ge=1, description="Questions per rollout.")
    samples_per_prompt: int = Field(4, ge=1, description="Answers sampled per question.")
    epochs_per_rollout: int = Field(1, ge=1, description="Passes over each rollout.")
    minibatches: int = Field(1, ge=1, description="Optimizer steps per pass over a rollout.")
    micro_batch_size: int = Field(
        8, ge=1, description="Answers per forward and backward pass; those to a question together."
    )
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate of the policy.")
    value_learning_rate: float | None = Field(
        None, gt=0, description="Peak learning rate of the value model; null for the policy's."
    )
    warmup_steps: int = Field(100, ge=0, description="Linear warm-up (optimizer steps).")
    max_grad_norm: float = Field(0.5, gt=0, description="Gradient clipping (norm).")
    gamma: float = Field(1.0, gt=0, le=1, description="Discount per token.")
    lam: float = Field(0.95, ge=0, le=1, description="Lambda of generalized advantage estimation.")
    clip_ratio: float = Field(0.2, gt=0, description="Clip of the probability ratio.")
    clip_value: float = Field(0.2, gt=0, description="Clip of the value's change.")
    value_coef: float = Field(1.0, ge=0, description="Weight of the value loss.")
    kl_coef: float = Field(
        0.3, ge=0, description="Weight of the per-token KL penalty against the starting adapter."
    )
    whiten_rewards: bool = Field(True, description="Divide rewards by their standard deviation.")
    whiten_advantages: bool = Field(True, description="Standardize advantages over the rollout.")
    max_kl: float = Field(
        100.0, gt=0, description="The run stops when the KL of a rollout exceeds this (nats)."
    )
    temperature: float = Field(0.7, gt=0)
    top_k: int = Field(20, ge=0, description="Sample among the k likeliest tokens; 0 for all.")
    max_new_tokens: int = Field(200, ge=1)
    evaluations: int = Field(
        10, ge=1, description="How often, over the run, dev answers are generated and rewarded."
    )
    dev_questions: int = Field(100, ge=1, description="Dev questions per evaluation.")
    save_every: int = Field(10, ge=1, description="Rollouts between two saves of the state.")
