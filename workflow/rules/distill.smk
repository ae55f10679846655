"""The teacher's cited answers, and supervised fine-tuning on them or on selected samples."""

# Only citations that it finds, or answers that it must like, depend on the verifier.
JUDGED = (
    CONFIG.teacher.citations == "attribute" or CONFIG.teacher.min_reward is not None
)


rule teach:
    input:
        code=code("teach.py"),
        verifier=verifier_files(TRAIN_VERIFIER) if JUDGED else [],
        prompts=given(CONFIG.teacher.prompt.files.values()) if ASKED else [],
        train=rules.data.output.train,
        dev=rules.data.output.dev,
    output:
        train=f"{TEACHER}/train.json",
        dev=f"{TEACHER}/dev.json",
    log:
        f"{LOGS}/teach.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=int(JUDGED and is_model(TRAIN_VERIFIER)),
        mem_mb=16000,
        runtime=1440,
    params:
        cfg=teach_params(),
    script:
        "../scripts/teach.py"


rule sft:
    input:
        code=code("train_sft.py"),
        base=base_files,
        start=start_files,
        train=sft_answers,
        # Without a teacher nobody has answered the dev questions.
        dev=rules.teach.output.dev if TAUGHT else rules.data.output.dev,
    output:
        directory(MODEL),
    log:
        f"{LOGS}/sft/{{system}}.seed{{seed}}.log",
    wildcard_constraints:
        system=one_of(systems_of(SFTSystem)),
    conda:
        "../../envs/citepipe.yaml"
    threads: 4
    resources:
        gpu=CONFIG.devices,
        mem_mb=32000,
        runtime=1440,
    params:
        cfg=sft_params,
    script:
        "../scripts/train_sft.py"
