"""The teacher's cited answers, and supervised fine-tuning on them or on selected samples."""

QUERIED = CONFIG.teacher.citations == "endpoint" and CONFIG.teacher.endpoint is not None
# Only citations that it finds, or answers that it must like, depend on the verifier.
JUDGED = CONFIG.teacher.citations == "attribute" or CONFIG.teacher.min_reward is not None
UNUSED = () if QUERIED else ("endpoint", "prompt")

TEACH_INPUT, TEACH_PARAMS = STAGES.add(
    [f"{TEACHER}/train.json", f"{TEACHER}/dev.json"],
    "teach.py",
    "citepipe.teach.teacher",
    inputs={
        "verifier": verifier_files(TRAIN_VERIFIER) if JUDGED else [],
        "prompts": files(*CONFIG.teacher.prompt.files.values()) if QUERIED else [],
        "train": [f"{DATA}/train.json"],
        "dev": [f"{DATA}/dev.json"],
    },
    cfg={
        "teacher": {k: v for k, v in resolved(CONFIG.teacher).items() if k not in UNUSED},
        "verifier": TRAIN_VERIFIER if JUDGED else None,
        "reward": resolved(CONFIG.reward) if JUDGED else None,
    },
)


rule teach:
    input:
        unpack(TEACH_INPUT),
    output:
        train=f"{TEACHER}/train.json",
        dev=f"{TEACHER}/dev.json",
    log:
        f"{LOGS}/teach.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(
            DEMAND.teaching(TRAIN_VERIFIER if JUDGED else ""),
            gpu=int(JUDGED and is_model(TRAIN_VERIFIER)),
        ),
    params:
        **TEACH_PARAMS,
    script:
        "../scripts/teach.py"


SFT_INPUT, SFT_PARAMS = STAGES.add(
    [MODEL],
    "train_sft.py",
    "citepipe.train.sft",
    inputs={
        "base": base_files,
        "start": lambda w: files(start_of(w)),
        "train": lambda w: [
            (
                f"{TEACHER}/train.json"
                if system(w).data == "teacher"
                else f"{SAMPLES}/answers.json".format(**w)
            )
        ],
        "dev": lambda w: [f"{TEACHER}/dev.json"] if system(w).data == "teacher" else [],
    },
    cfg=training_cfg,
    systems=systems_of(kinds.SFTSystem),
)


rule sft:
    input:
        unpack(SFT_INPUT),
    output:
        directory(MODEL),
    log:
        f"{LOGS}/sft/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of(kinds.SFTSystem)),
    # Before jobs that nothing but a score waits for.
    priority: 1
    conda:
        "../../envs/citepipe.yaml"
    threads: DEMAND.threads
    resources:
        **needs(DEMAND.training, gpu=CONFIG.devices),
    params:
        **SFT_PARAMS,
    script:
        "../scripts/train_sft.py"
