"""Reinforcement learning with rewards on tokens, or with their sum on the last token."""

# What every rule of reinforcement learning depends on beside its code.
RL_INPUTS = {
    "verifier": verifier_files(RL_VERIFIER),
    "base": base_files,
    "start": start_files,
    "train": rules.data.output.train,
    "dev": rules.data.output.dev,
}


rule ppo:
    input:
        **RL_INPUTS,
        code=code("train_ppo.py", "reinforcement.py"),
    output:
        directory(MODEL),
    log:
        f"{LOGS}/ppo/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_training_by("ppo")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=CONFIG.devices,
        mem_mb=48000,
        runtime=4320,
    params:
        cfg=rl_params,
    script:
        "../scripts/train_ppo.py"


rule group_relative:
    input:
        **RL_INPUTS,
        code=code("train_group_relative.py", "reinforcement.py"),
    output:
        directory(MODEL),
    log:
        f"{LOGS}/group_relative/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_training_by("grpo", "rloo")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=CONFIG.devices,
        mem_mb=48000,
        runtime=4320,
    params:
        cfg=rl_params,
    script:
        "../scripts/train_group_relative.py"


rule dpo:
    input:
        code=code("train_dpo.py"),
        base=base_files,
        start=start_files,
        samples=candidates,
        questions=rules.data.output.train,
    output:
        directory(MODEL),
    log:
        f"{LOGS}/dpo/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_training_by("dpo")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=CONFIG.devices,
        mem_mb=48000,
        runtime=1440,
    params:
        cfg=dpo_params,
    script:
        "../scripts/train_dpo.py"
