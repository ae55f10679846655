"""An answer to every test question by every system: the likeliest one, or one that is searched."""


rule weights:
    input:
        code=code("prepare_weights.py"),
        given=weights_given,
    output:
        directory(WEIGHTS),
    log:
        f"{LOGS}/weights/{{system}}.log",
    wildcard_constraints:
        system=one_of(systems_of(AdapterSystem)),
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=16000,
        runtime=120,
    params:
        cfg=weights_params,
    script:
        "../scripts/prepare_weights.py"


rule predict:
    input:
        code=code("predict.py", "prediction.py"),
        base=base_files,
        adapter=predict_adapter_files,
        tests=rules.data.output.tests,
    output:
        expand(f"{PREDICTIONS}/{{dataset}}.json", dataset=TESTS, allow_missing=True),
    log:
        f"{LOGS}/predict/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_decoding_by("greedy")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=GENERATOR_GPUS,
        mem_mb=32000,
        runtime=720,
    params:
        cfg=predict_params,
    script:
        "../scripts/predict.py"


rule predict_by_search:
    input:
        code=code("predict_by_search.py", "prediction.py"),
        verifier=verifier_files(TRAIN_VERIFIER),
        base=base_files,
        adapter=predict_adapter_files,
        tests=rules.data.output.tests,
    output:
        expand(f"{PREDICTIONS}/{{dataset}}.json", dataset=TESTS, allow_missing=True),
    log:
        f"{LOGS}/predict_by_search/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_decoding_by("segment_search")),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=SEARCH_GPUS,
        mem_mb=32000,
        runtime=2880,
    params:
        cfg=predict_params,
        search=search_params,
    script:
        "../scripts/predict_by_search.py"
