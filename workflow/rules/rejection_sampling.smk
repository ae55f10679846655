"""Answers sampled from a system, the best of them kept: whole answers, or segment by segment.

The questions are shared out among shards, which are put together again in the questions' order.
"""

SAMPLE_INPUT, SAMPLE_PARAMS = STAGES.add(
    [SHARD],
    "sample.py",
    lambda w: f"citepipe.sample.{system(w).data.sample}",
    inputs={
        "verifier": verifier_files(TRAIN_VERIFIER),
        "base": lambda w: base_files(w, system(w).data.from_),
        "adapter": lambda w: files(answers_by(system(w).data.from_, w.seed)),
        "questions": [f"{DATA}/train.json"],
    },
    cfg=lambda w: {
        **generating_cfg(system(w).data.from_),
        "adapter": answers_by(system(w).data.from_, w.seed),
        "method": system(w).data.sample,
        "options": sampling_options(system(w).data.sample),
        "reward": resolved(CONFIG.reward),
        "verifier": TRAIN_VERIFIER,
    },
    systems=SAMPLED,
)


rule sample:
    input:
        unpack(SAMPLE_INPUT),
    output:
        SHARD,
    log:
        f"{LOGS}/sample/{{system}}.seed{{seed}}.{{scatteritem}}.log",
    wildcard_constraints:
        system=one_of(SAMPLED),
    # Before jobs that nothing but a score waits for.
    priority: 1
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.sampling, gpu=SEARCH_GPUS),
    params:
        **SAMPLE_PARAMS,
    script:
        "../scripts/sample.py"


MERGE_INPUT, MERGE_PARAMS = STAGES.add(
    [f"{SAMPLES}/answers.json", f"{SAMPLES}/candidates.jsonl"],
    "merge_samples.py",
    "citepipe.sample.merge",
    inputs={
        "questions": [f"{DATA}/train.json"],
        "parts": sample_parts,
    },
    cfg=choice_cfg,
    systems=[*SAMPLED, *CHOSEN],
)


rule merge_samples:
    input:
        unpack(MERGE_INPUT),
    output:
        answers=f"{SAMPLES}/answers.json",
        candidates=f"{SAMPLES}/candidates.jsonl",
        account=f"{SAMPLES}/account.json",
    log:
        f"{LOGS}/merge_samples/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of([*SAMPLED, *CHOSEN]),
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(Ask(4, 0.01)),
    params:
        **MERGE_PARAMS,
    script:
        "../scripts/merge_samples.py"
