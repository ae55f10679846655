"""The table of all systems, their scores in tidy form, learning curves, and a page that shows all."""


report: "../report/overview.rst"


ALL_SCORES = of_all_runs(SYSTEMS, SCORES)
ALL_MODELS = of_all_runs(TRAINED, MODEL)
SAMPLE_FILES = (f"{SAMPLES}/answers.json", f"{SAMPLES}/candidates.jsonl")
# What the run makes on the way. Snakemake does not miss a file from which something was made that
# is there; the table asks for all of them, so that what a failed job removed is made again.
PRODUCTS = [
    *of_all_runs([*SAMPLED, *CHOSEN], *SAMPLE_FILES),
    *of_all_runs(ANSWERING, *ANSWERS),
    *([f"{DATA}/train.json", f"{DATA}/dev.json", *TEST_FILES] if TESTS else []),
    *([f"{TEACHER}/train.json", f"{TEACHER}/dev.json"] if TAUGHT else []),
    *(path for path in files(*SPLITS) if Path(path).is_relative_to(RESULTS)),
]
MADE = [*PRODUCTS, *ALL_MODELS, *ALL_SCORES]
COMPARED = {
    "runs": [[name, seed, name in TRAINED] for name in SYSTEMS for seed in CONFIG.seeds_of(name)],
    "starts": [
        [name, start]
        for name, own in SYSTEMS.items()
        if (start := getattr(own, "start", getattr(own, "model_of", None)))
    ],
    # What is trained on the teacher's answers is what all others are to be better than.
    "against": next(
        (n for n in TRAINED if SYSTEMS[n].train == "sft" and SYSTEMS[n].data == "teacher"), ""
    ),
    "sampled": [[n, seed] for n in (*SAMPLED, *CHOSEN) for seed in CONFIG.seeds_of(n)],
    "bootstrap": [CONFIG.score.resamples, CONFIG.score.confidence, CONFIG.score.seed],
}
CURVES = f"{RESULTS}/figures/learning_curves.svg"
ALL_SAMPLES = of_all_runs([*SAMPLED, *CHOSEN], *SAMPLE_FILES)
REINFORCED = systems_of(kinds.RLSystem)
FIGURES = {
    "scores": "Scores",
    "errors": "Scores",
    **({"samples": "Training"} if ALL_SAMPLES else {}),
    **({"cost": "Training"} if ALL_SAMPLES or REINFORCED else {}),
}
TABLE_INPUT, TABLE_PARAMS = STAGES.add(
    [f"{RESULTS}/table.csv", CURVES, *(f"{RESULTS}/figures/{name}.svg" for name in FIGURES)],
    "table.py",
    "citepipe.report.files citepipe.report.curves citepipe.report.figures",
    inputs={
        "products": PRODUCTS,
        "models": ALL_MODELS,
        "scores": ALL_SCORES,
        "samples": ALL_SAMPLES,
    },
    cfg=COMPARED,
    absent=lambda w: [path for path in MADE if not Path(path).exists()],
)


rule table:
    input:
        unpack(TABLE_INPUT),
    output:
        table=f"{RESULTS}/table.csv",
        page=shown("table.html", "table of systems", "table", "Scores"),
        markdown=f"{RESULTS}/table.md",
        latex=f"{RESULTS}/table.tex",
        scores=shown("scores.csv", "all scores (CSV)", "scores", "Scores"),
        curves=(
            [
                shown("figures/learning_curves.svg", "learning curves", "curves", "Training"),
                f"{RESULTS}/figures/learning_curves.png",
                shown("figures/curves.csv", "their numbers (CSV)", "curves", "Training"),
            ]
            if TRAINED
            else []
        ),
        figures=[
            shown(f"figures/{name}.svg", f"figure of {name}", "figures", category)
            for name, category in FIGURES.items()
        ],
        pictures=[f"{RESULTS}/figures/{name}.png" for name in FIGURES],
    log:
        f"{LOGS}/table.log",
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(Ask(2, 0.01)),
    params:
        **TABLE_PARAMS,
    script:
        "../scripts/table.py"


ALL_ANSWERS = [
    path
    for name in SYSTEMS
    for seed in CONFIG.seeds_of(name)
    for path in ANSWERS_OF(Wildcards(system=name, seed=seed)).values()
]
PAGE_INPUT, PAGE_PARAMS = STAGES.add(
    [f"{RESULTS}/report.html"],
    "report.py",
    "citepipe.report.page",
    inputs={
        "scores": ALL_SCORES,
        "answers": files(*ALL_ANSWERS),
        "curves": [CURVES] if TRAINED else [],
        "samples": ALL_SAMPLES,
        "models": of_all_runs(REINFORCED, MODEL),
    },
    cfg={
        **COMPARED,
        "reinforced": [[n, seed] for n in REINFORCED for seed in CONFIG.seeds_of(n)],
        "answers": ALL_ANSWERS,
        "page": [
            digest_of_path(ROOT / f"citepipe/report/page.{kind}") for kind in ("css", "html", "js")
        ],
    },
)


rule report:
    input:
        unpack(PAGE_INPUT),
    output:
        shown("report.html", "every answer", "report", "Answers"),
    log:
        f"{LOGS}/report.log",
    localrule: True
    conda:
        "../../envs/citepipe.yaml"
    resources:
        **needs(Ask(4, 0.01)),
    params:
        **PAGE_PARAMS,
    script:
        "../scripts/report.py"
