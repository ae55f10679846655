"""An answer to every test question by every system: the likeliest one, a searched or copied one."""

WEIGHTS_INPUT, WEIGHTS_PARAMS = STAGES.add(
    [WEIGHTS],
    "prepare_weights.py",
    "citepipe.models.released",
    inputs={"given": lambda w: files(system(w).adapter) if system(w).adapter else base_files(w)},
    # For training that starts from the base as it is, an adapter that adds nothing is made for it.
    cfg=lambda w: {
        "adapter": system(w).adapter,
        "model": None if system(w).adapter else resolved(CONFIG.model),
    },
    systems=systems_of(kinds.AdapterSystem),
)


rule weights:
    input:
        unpack(WEIGHTS_INPUT),
    output:
        directory(WEIGHTS),
    log:
        f"{LOGS}/weights/{{system}}.log",
    wildcard_constraints:
        system=one_of(systems_of(kinds.AdapterSystem)),
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(DEMAND.weights()),
    params:
        **WEIGHTS_PARAMS,
    script:
        "../scripts/prepare_weights.py"


ANSWERS = [f"{PREDICTIONS}/{dataset}.json" for dataset in TESTS]
SEARCHING = {
    "search": sampling_options("segment_search"),
    "reward": resolved(CONFIG.reward),
    "verifier": TRAIN_VERIFIER,
}
EXTRACTED = systems_of(kinds.ExtractSystem)
DECODE = lambda w: "extract" if w.system in EXTRACTED else system(w).decode
PREDICT_INPUT, PREDICT_PARAMS = STAGES.add(
    ANSWERS,
    "predict.py",
    lambda w: f"citepipe.sample.{DECODE(w)}".replace("greedy", "predict"),
    inputs={
        "verifier": lambda w: (
            verifier_files(TRAIN_VERIFIER) if DECODE(w) == "segment_search" else []
        ),
        "base": lambda w: [] if w.system in EXTRACTED else base_files(w),
        "adapter": lambda w: ([] if w.system in EXTRACTED else files(answers_by(w.system, w.seed))),
        "tests": TEST_FILES,
    },
    cfg=lambda w: (
        {"splitter": CONFIG.score.splitter}
        if w.system in EXTRACTED
        else {
            **generating_cfg(w.system),
            "adapter": answers_by(w.system, w.seed),
            "predict": resolved(CONFIG.predict),
            "search": SEARCHING if DECODE(w) == "segment_search" else None,
        }
    ),
    systems=ANSWERING,
)


rule predict:
    input:
        unpack(PREDICT_INPUT),
    output:
        ANSWERS,
    log:
        f"{LOGS}/predict/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(ANSWERING),
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.prediction, gpu=lambda w: 0 if w.system in EXTRACTED else SEARCH_GPUS),
    params:
        **PREDICT_PARAMS,
    script:
        "../scripts/predict.py"
