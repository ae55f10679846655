"""ALCE's scores of all answers of a system, by every verifier that reports."""

METRICS = CONFIG.score.metrics or ()
UNUSED_MODELS = {
    *(() if any(metric.startswith("QA-") for metric in METRICS) else ("reader",)),
    *(() if "mauve" in METRICS else ("mauve_model", "mauve_seed")),
}
# The files with a system's answers, by dataset: predicted here, or somebody's.
ANSWERS_OF = lambda w: (
    dict(system(w).outputs)
    if w.system not in ANSWERING
    else {d: f"{PREDICTIONS}/{d}.json".format(**w) for d in TESTS}
)
SCORE_INPUT, SCORE_PARAMS = STAGES.add(
    [SCORES],
    "score.py",
    "citepipe.scoring.files",
    inputs={
        "verifiers": verifier_files(*CONFIG.verifiers.report.values()),
        "answers": lambda w: files(*ANSWERS_OF(w).values()),
    },
    cfg=lambda w: {
        # In their order: the first has the plain names.
        "verifiers": list(CONFIG.verifiers.report.items()),
        "score": {k: v for k, v in resolved(CONFIG.score).items() if k not in UNUSED_MODELS},
        "answers": list(ANSWERS_OF(w).items()),
    },
    systems=SYSTEMS,
)


rule score:
    input:
        unpack(SCORE_INPUT),
    output:
        SCORES,
    log:
        f"{LOGS}/score/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(SYSTEMS),
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.scores(), gpu=int(any(map(is_model, CONFIG.verifiers.report.values())))),
    params:
        **SCORE_PARAMS,
    script:
        "../scripts/score.py"
