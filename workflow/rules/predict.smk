"""An answer to every test question by every system: the likeliest one, or one that is searched."""

WEIGHTS_INPUT, WEIGHTS_PARAMS = STAGES.add(
    [WEIGHTS],
    "prepare_weights.py",
    "citepipe.models.released",
    inputs={"given": lambda w: files(system(w).adapter) if system(w).adapter else base_files(w)},
    # For the base as it is, an adapter that adds nothing is made for it.
    cfg=lambda w: {
        "adapter": system(w).adapter,
        "model": None if system(w).adapter else resolved(CONFIG.model),
    },
    systems=systems_of(kinds.AdapterSystem),
)


rule weights:
    input:
        **WEIGHTS_INPUT,
    output:
        directory(WEIGHTS),
    log:
        f"{LOGS}/weights/{{system}}.log",
    wildcard_constraints:
        system=one_of(systems_of(kinds.AdapterSystem)),
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(gb=16, hours=2),
    params:
        **WEIGHTS_PARAMS,
    script:
        "../scripts/prepare_weights.py"


ANSWERS = [f"{PREDICTIONS}/{dataset}.json" for dataset in TESTS]
SEARCHING = {
    "search": resolved(CONFIG.segment_search),
    "reward": resolved(CONFIG.reward),
    "verifier": TRAIN_VERIFIER,
}
PREDICT_INPUT, PREDICT_PARAMS = STAGES.add(
    ANSWERS,
    "predict.py",
    lambda w: (
        "citepipe.sample." + ("predict" if system(w).decode == "greedy" else "segment_search")
    ),
    inputs={
        "verifier": lambda w: (
            [] if system(w).decode == "greedy" else verifier_files(TRAIN_VERIFIER)
        ),
        "base": base_files,
        "adapter": lambda w: files(model_path(w.system, w.seed)),
        "tests": TEST_FILES,
    },
    cfg=lambda w: {
        **generating_cfg(),
        "adapter": model_path(w.system, w.seed),
        "predict": resolved(CONFIG.predict),
        "search": None if system(w).decode == "greedy" else SEARCHING,
    },
    systems=ANSWERING,
)


rule predict:
    input:
        **PREDICT_INPUT,
    output:
        ANSWERS,
    log:
        f"{LOGS}/predict/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(ANSWERING),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        **needs(gb=32, hours=48, gpu=SEARCH_GPUS),
    params:
        **PREDICT_PARAMS,
    script:
        "../scripts/predict.py"
