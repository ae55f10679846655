"""Questions, documents and gold answers; and the miniature with its base model."""


localrules:
    fetch,


rule fetch:
    input:
        code=code("fetch.py"),
    output:
        directory(SOURCE),
    log:
        f"{LOGS}/fetch/{{source}}.log",
    wildcard_constraints:
        source=one_of([Path(folder).name for folder in SOURCES]),
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=1440,
    params:
        cfg=source_params,
    script:
        "../scripts/fetch.py"


rule world:
    input:
        code=code("make_world.py"),
    output:
        expand(
            f"{WORLD}/{{split}}.json",
            split=["train", "dev", "test", "expertqa", "world"],
        ),
    log:
        f"{LOGS}/world.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        cfg=world_params(),
    script:
        "../scripts/make_world.py"


rule miniature_base:
    input:
        code=code("pretrain_base.py"),
    output:
        directory(MINIATURE_BASE),
    log:
        f"{LOGS}/miniature_base.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=8000,
        runtime=120,
    params:
        cfg=options(CONFIG.miniature) if CONFIG.miniature else None,
    script:
        "../scripts/pretrain_base.py"


rule data:
    input:
        code=code("mix_data.py"),
        files=DATA_FILES,
        passages=given(CONFIG.retrieval.passages) if CONFIG.retrieval else [],
    output:
        train=f"{DATA}/train.json",
        dev=f"{DATA}/dev.json",
        tests=expand(f"{DATA}/test/{{dataset}}.json", dataset=TESTS),
        account=f"{DATA}/mixture.json",
    log:
        f"{LOGS}/data.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        cfg=data_params(),
    script:
        "../scripts/mix_data.py"


if ABSENT:

    # Only in a dry run, which shows the jobs whether or not their first inputs are there.
    rule absent_inputs:
        output:
            list(ABSENT),
        log:
            f"{LOGS}/absent_inputs.log",
        conda:
            "../../envs/citepipe.yaml"
        shell:
            "exit 1 2> {log}"
