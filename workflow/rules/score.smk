"""ALCE's scores of all answers of a system, by every verifier that reports."""


rule score:
    input:
        code=code("score.py"),
        verifiers=verifier_files(*CONFIG.verifiers.report.values()),
        answers=score_inputs,
    output:
        SCORES,
    log:
        f"{LOGS}/score/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(SYSTEMS),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=int(any(map(is_model, CONFIG.verifiers.report.values()))),
        mem_mb=32000,
        runtime=720,
    params:
        cfg=score_params,
    script:
        "../scripts/score.py"
