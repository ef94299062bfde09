# Tables and figures of the published runs (results/published), beside the paper's numbers. They need no training or
# download and do not depend on the code of the training; missing runs leave marked gaps.


for study in PIPELINE.published_studies:

    rule:
        name:
            f"published_{study}"
        input:
            PIPELINE.published_inputs(study),
        output:
            PIPELINE.published_outputs(study),
        log:
            f"logs/published/{study}.log",
        conda:
            "../envs/apao.yaml"
        params:
            name=study,
            study=PIPELINE.published_study(study),
        shell:
            # Also show the list of missing runs on the terminal.
            "apao report {params.name:q} --published > {log:q} 2>&1 && cat {log:q} >&2"


rule published:
    input:
        [PIPELINE.published_outputs(study) for study in PIPELINE.published_studies],
