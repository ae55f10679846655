"""From questions and a teacher's cited answers to a table of systems (see README.md).

The whole workflow is derived from the configuration's table of systems: `config.yaml`, or the file
given with --configfile in its place.
"""

from snakemake.utils import min_version

min_version("9.0")

# A configuration given on the command line is complete and takes the default's place. Merging the
# two would run the default's systems beside those that were asked for.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/distill.smk"
include: "workflow/rules/rejection_sampling.smk"
include: "workflow/rules/reinforcement.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/score.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        f"{RESULTS}/table.csv",
        f"{RESULTS}/report.html",
