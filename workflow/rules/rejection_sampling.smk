"""Answers sampled from a system, the best of them kept: whole answers, or segment by segment.

The questions are shared out among shards, which are put together again in the questions' order.
"""


def choice_cfg(wildcards):
    """The questions, and which of them are learnt from: where answers are compared, all."""
    options, learns = getattr(CONFIG, system(wildcards).data.sample), systems_of(kinds.SFTSystem)
    least = options.min_reward if wildcards.system in learns else None
    return {"questions": options.questions, "min_reward": least}


SAMPLE_INPUT, SAMPLE_PARAMS = STAGES.add(
    [SHARD],
    "sample.py",
    lambda w: f"citepipe.sample.{system(w).data.sample}",
    inputs={
        "verifier": verifier_files(TRAIN_VERIFIER),
        "base": base_files,
        "adapter": lambda w: files(model_path(system(w).data.from_, w.seed)),
        "questions": [f"{DATA}/train.json"],
    },
    cfg=lambda w: {
        **generating_cfg(),
        "adapter": model_path(system(w).data.from_, w.seed),
        "method": system(w).data.sample,
        "options": sampling_options(system(w).data.sample),
        "reward": resolved(CONFIG.reward),
        "verifier": TRAIN_VERIFIER,
    },
    systems=SAMPLED,
)


rule sample:
    input:
        **SAMPLE_INPUT,
    output:
        SHARD,
    log:
        f"{LOGS}/sample/{{system}}.seed{{seed}}.{{scatteritem}}.log",
    wildcard_constraints:
        system=one_of(SAMPLED),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        **needs(gb=32, hours=48, gpu=SEARCH_GPUS),
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
        "parts": lambda w: [p.format(**w) for p in gather.shards(SHARD, allow_missing=True)],
    },
    cfg=choice_cfg,
    systems=SAMPLED,
)


rule merge_samples:
    input:
        **MERGE_INPUT,
    output:
        answers=f"{SAMPLES}/answers.json",
        candidates=f"{SAMPLES}/candidates.jsonl",
    log:
        f"{LOGS}/merge_samples/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(SAMPLED),
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(gb=4, hours=1),
    params:
        **MERGE_PARAMS,
    script:
        "../scripts/merge_samples.py"
