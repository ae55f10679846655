"""One table of all systems, and all scores in tidy form."""

RUNS = [[name, seed] for name in SYSTEMS for seed in seeds_of(name)]


localrules:
    table,


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
