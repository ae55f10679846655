"""Reinforcement learning with rewards on tokens, or with their sum on the last token."""


rule ppo:
    input:
        code=code("train_ppo.py"),
        verifier=verifier_files(RL_VERIFIER),
        base=base_files,
        start=start_files,
        train=rules.data.output.train,
        dev=rules.data.output.dev,
    output:
        directory(MODEL),
    log:
        f"{LOGS}/ppo/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of(PPOSystem)),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=48000,
        runtime=4320,
    params:
        cfg=ppo_params,
    script:
        "../scripts/train_ppo.py"
