"""An answer to every test question by every system."""


rule predict:
    input:
        code=code("predict.py"),
        base=base_files,
        adapter=predict_adapter_files,
        tests=rules.data.output.tests,
    output:
        expand(f"{PREDICTIONS}/{{dataset}}.json", dataset=TESTS, allow_missing=True),
    log:
        f"{LOGS}/predict/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of((SFTSystem, RLSystem, DPOSystem, AdapterSystem))),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=32000,
        runtime=720,
    params:
        cfg=predict_params,
    script:
        "../scripts/predict.py"
