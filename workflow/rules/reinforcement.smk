"""Learning from rewards on tokens or on whole answers: PPO, GRPO, RLOO, and DPO on samples."""

RL_VERIFIER = CONFIG.verifiers.rl or TRAIN_VERIFIER
WATCH = CONFIG.verifiers.watch and CONFIG.verifiers.report[CONFIG.verifiers.watch]
RL_INPUT, RL_PARAMS = STAGES.add(
    [MODEL],
    "train_rl.py",
    "citepipe.train.rl",
    inputs={
        "verifier": verifier_files(RL_VERIFIER, *filter(None, [WATCH])),
        "base": base_files,
        "start": lambda w: files(start_of(w)),
        "train": [f"{DATA}/train.json"],
        "dev": [f"{DATA}/dev.json"],
    },
    cfg=lambda w: {
        **training_cfg(w),
        "method": system(w).train,
        "reward": resolved(CONFIG.reward),
        "placement": system(w).reward,
        "verifier": RL_VERIFIER,
        "watch": WATCH and [CONFIG.verifiers.watch, WATCH],
    },
    systems=systems_of(kinds.RLSystem),
)


rule rl:
    input:
        unpack(RL_INPUT),
    output:
        directory(MODEL),
    log:
        f"{LOGS}/rl/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of(kinds.RLSystem)),
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.training, gpu=CONFIG.devices),
    params:
        **RL_PARAMS,
    script:
        "../scripts/train_rl.py"


DPO_INPUT, DPO_PARAMS = STAGES.add(
    [MODEL],
    "train_dpo.py",
    "citepipe.train.dpo",
    inputs={
        "base": base_files,
        "start": lambda w: files(start_of(w)),
        "samples": lambda w: [
            f"{SAMPLES}/candidates.jsonl".format(system=sampler_of(w), seed=w.seed)
        ],
        "questions": [f"{DATA}/train.json"],
    },
    cfg=training_cfg,
    systems=systems_of(kinds.DPOSystem),
)


rule dpo:
    input:
        unpack(DPO_INPUT),
    output:
        directory(MODEL),
    log:
        f"{LOGS}/dpo/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of(kinds.DPOSystem)),
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.training, gpu=CONFIG.devices),
    params:
        **DPO_PARAMS,
    script:
        "../scripts/train_dpo.py"
