"""Questions, documents and gold answers; the miniature's world and base model."""

FETCH_INPUT, FETCH_PARAMS = STAGES.add(
    [SOURCE],
    "fetch.py",
    lambda w: "citepipe.models.gguf" if is_gguf(w) else "citepipe.sources",
    inputs={"given": lambda w: files(SOURCES[SOURCE.format(**w)].address)},
    # Where it is kept and how patiently it is fetched is no matter.
    cfg=lambda w: {
        "address": SOURCES[SOURCE.format(**w)].address,
        "members": sorted(SOURCES[SOURCE.format(**w)].members),
        "sha256": SOURCES[SOURCE.format(**w)].sha256,
        # Which one auto is, the machine that computes decides.
        **({"dtype": CONFIG.model.dtype.replace("auto", "float32")} if is_gguf(w) else {}),
    },
)


rule fetch:
    input:
        unpack(FETCH_INPUT),
    output:
        directory(SOURCE),
    log:
        f"{LOGS}/fetch/{{source}}.log",
    wildcard_constraints:
        source=one_of([Path(folder).name for folder in SOURCES]),
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(Ask(2, 0.1)),
    params:
        **FETCH_PARAMS,
    script:
        "../scripts/fetch.py"


MINIATURE = resolved(CONFIG.miniature) if CONFIG.miniature else {}
WORLD_FILES = [f"{WORLD}/{name}.json" for name in ("train", "dev", "test", "expertqa", "world")]
WORLD_INPUT, WORLD_PARAMS = STAGES.add(
    WORLD_FILES,
    "miniature.py",
    "citepipe.miniature.world",
    inputs={},
    # Other options of the base model leave the world as it is.
    cfg={key: value for key, value in MINIATURE.items() if key != "base"},
)


rule world:
    input:
        unpack(WORLD_INPUT),
    output:
        WORLD_FILES,
    log:
        f"{LOGS}/world.log",
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(Ask(ALONE, 0.01)),
    params:
        **WORLD_PARAMS,
    script:
        "../scripts/miniature.py"


BASE_INPUT, BASE_PARAMS = STAGES.add(
    [MINIATURE_BASE], "miniature.py", "citepipe.miniature.base", inputs={}, cfg=MINIATURE
)


rule miniature_base:
    input:
        unpack(BASE_INPUT),
    output:
        directory(MINIATURE_BASE),
    log:
        f"{LOGS}/miniature_base.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(Ask(ALONE, 0.15), gpu=1),
    params:
        **BASE_PARAMS,
    script:
        "../scripts/miniature.py"


TESTS = list(CONFIG.data.test) if CONFIG.data else []
TEST_FILES = [f"{DATA}/test/{dataset}.json" for dataset in TESTS]
SPLITS = [*CONFIG.data.train, *CONFIG.data.dev, *CONFIG.data.test.values()] if CONFIG.data else []
DATA_INPUT, DATA_PARAMS = STAGES.add(
    [f"{DATA}/train.json", f"{DATA}/dev.json", *TEST_FILES],
    "mix_data.py",
    "citepipe.data.mixture" + (" citepipe.retrieve" if CONFIG.retrieval else ""),
    inputs={
        "files": files(*SPLITS),
        "passages": files(*(CONFIG.retrieval and CONFIG.retrieval.passages or ())),
    },
    cfg={
        "data": CONFIG.data and resolved(CONFIG.data),
        "retrieval": CONFIG.retrieval and resolved(CONFIG.retrieval),
    },
)


rule data:
    input:
        unpack(DATA_INPUT),
    output:
        train=f"{DATA}/train.json",
        dev=f"{DATA}/dev.json",
        tests=TEST_FILES,
        account=f"{DATA}/mixture.json",
    log:
        f"{LOGS}/data.log",
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(DEMAND.data()),
    params:
        **DATA_PARAMS,
    script:
        "../scripts/mix_data.py"
