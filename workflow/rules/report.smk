"""One table of all systems, all scores in tidy form, and the learning curves."""

RUNS = [[name, seed] for name in SYSTEMS for seed in seeds_of(name)]


TRAINED = [[name, seed] for name, seed in RUNS if hasattr(SYSTEMS[name], "train")]


localrules:
    table,
    curves,


rule table:
    input:
        code=code("write_table.py"),
        products=products(),
        scores=[SCORES.format(system=name, seed=seed) for name, seed in RUNS],
    output:
        table=report(
            f"{RESULTS}/table.csv",
            caption="../report/table.rst",
            category="Scores",
            labels={"file": "systems"},
        ),
        scores=report(
            f"{RESULTS}/scores.csv",
            caption="../report/scores.rst",
            category="Scores",
            labels={"file": "all scores"},
        ),
    log:
        f"{LOGS}/table.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        cfg={"runs": RUNS, "absent": withdraw(f"{RESULTS}/table.csv")},
    script:
        "../scripts/write_table.py"


rule curves:
    input:
        code=code("draw_curves.py"),
        models=[MODEL.format(system=name, seed=seed) for name, seed in TRAINED],
    output:
        figure=report(
            f"{RESULTS}/figures/learning_curves.svg",
            caption="../report/curves.rst",
            category="Training",
            labels={"file": "learning curves"},
        ),
        points=report(
            f"{RESULTS}/figures/curves.csv",
            caption="../report/curves.rst",
            category="Training",
            labels={"file": "their numbers"},
        ),
    log:
        f"{LOGS}/curves.log",
    conda:
        "../../envs/citepipe.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        cfg={
            "runs": [
                [name, seed, f"{MODEL}/metrics.jsonl".format(system=name, seed=seed)]
                for name, seed in TRAINED
            ]
        },
    script:
        "../scripts/draw_curves.py"
