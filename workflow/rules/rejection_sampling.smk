"""Answers sampled from a system, the best of them kept: whole answers, or segment by segment.

The questions are shared out among shards, which are put together again in the questions' order.
"""


rule best_of_n:
    input:
        code=code("best_of_n.py", "sampling.py"),
        verifier=verifier_files(TRAIN_VERIFIER),
        base=base_files,
        adapter=sampled_from_files,
        questions=rules.data.output.train,
    output:
        SHARD,
    log:
        f"{LOGS}/best_of_n/{{system}}.seed{{seed}}.{{scatteritem}}.log",
    wildcard_constraints:
        system=one_of(systems_sampling_by("best_of_n")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=SEARCH_GPUS,
        mem_mb=32000,
        runtime=2880,
    params:
        cfg=sample_params,
    script:
        "../scripts/best_of_n.py"


rule segment_search:
    input:
        code=code("segment_search.py", "sampling.py"),
        verifier=verifier_files(TRAIN_VERIFIER),
        base=base_files,
        adapter=sampled_from_files,
        questions=rules.data.output.train,
    output:
        SHARD,
    log:
        f"{LOGS}/segment_search/{{system}}.seed{{seed}}.{{scatteritem}}.log",
    wildcard_constraints:
        system=one_of(systems_sampling_by("segment_search")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=SEARCH_GPUS,
        mem_mb=32000,
        runtime=2880,
    params:
        cfg=sample_params,
    script:
        "../scripts/segment_search.py"


rule merge_samples:
    input:
        code=code("merge_samples.py"),
        questions=rules.data.output.train,
        parts=gather.shards(SHARD, allow_missing=True),
    output:
        answers=f"{SAMPLES}/answers.json",
        candidates=f"{SAMPLES}/candidates.jsonl",
    log:
        f"{LOGS}/merge_samples/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(
            systems_sampling_by("best_of_n") + systems_sampling_by("segment_search")
        ),
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=merge_params,
    script:
        "../scripts/merge_samples.py"
