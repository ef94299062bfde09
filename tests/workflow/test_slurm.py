"""The study on a real Slurm cluster of two nodes. Runs with APAO_SLURM=1, and then installs Slurm if it is missing."""

import importlib.util
import os
import re
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.content import version
from helpers.project import Project, make_workflow
from helpers.snakemake import Ended
from slurm_cluster import NODES, Cluster, Finished, NoCluster, install

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("APAO_SLURM") != "1", reason="installs Slurm; set APAO_SLURM=1"),
]

# The plugin's default of 40 s between queries of the queue is longer than a job of the tiny study.
SLURM = ("--workflow-profile", "slurm", "--slurm-init-seconds-before-status-checks", "3")
RUN = "results/toy/tiger/ce/seed42"
SAME = ("results/**/metrics.json", "results/**/model.safetensors", "data/toy/*.safetensors", "data/toy/codes.parquet")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """The running cluster, which all commands of this module use."""
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("Snakemake's plugin is missing: pip install -r requirements-slurm.lock")
    try:
        install()
    except NoCluster as reason:
        pytest.skip(str(reason))
    # Not in pytest's folder, whose path may be too long for a socket.
    with (
        tempfile.TemporaryDirectory(prefix="apao-slurm-") as folder,
        pytest.MonkeyPatch.context() as patch,
        Cluster(Path(folder)) as running,
    ):
        for name, value in running.environment.items():
            patch.setenv(name, value)
        yield running


def ended(cluster: Cluster, call: Ended) -> list[Finished]:
    """The jobs of one Snakemake command, as recorded by Slurm."""
    name = re.search(r"SLURM run ID: (\S+)", call.output)[1]
    return [job for job in cluster.finished() if job.name == name]


def assert_same_files(one: Project, other: Project, patterns: tuple[str, ...] = SAME) -> int:
    """Assert that both have the same files with the same bytes; returns their number."""
    names = [
        sorted(str(path.relative_to(project.folder)) for pattern in patterns for path in project.folder.glob(pattern))
        for project in (one, other)
    ]
    assert names[0] == names[1]
    for name in names[0]:
        assert (one.folder / name).read_bytes() == (other.folder / name).read_bytes(), name
    return len(names[0])


def test_both_nodes_answer(cluster: Cluster):
    answers = cluster.command("srun", "-N2", "bash", "-c", "echo $SLURMD_NODENAME")
    assert sorted(answers.split()) == list(NODES)


def test_the_study_is_that_of_one_machine(cluster: Cluster, finished: Project, tmp_path: Path):
    project = make_workflow(tmp_path)
    started = time.monotonic()
    call = project.snakemake(*SLURM, "all", timeout=3600)
    seconds = time.monotonic() - started
    jobs = ended(cluster, call)
    assert {job.state for job in jobs} == {"COMPLETED"}
    nodes = Counter(job.node for job in jobs)
    assert set(nodes) == set(NODES)
    # All jobs except the download and the target `all`, which run in the command itself.
    assert len(jobs) == len(call.jobs) - 2
    assert "gres:gpu:1" not in cluster.gpus().values()
    same = assert_same_files(project, finished)
    assert project.snakemake(*SLURM, "all").jobs == []
    print(f"\n{len(jobs)} jobs ({nodes['n1']} on n1, {nodes['n2']} on n2) in {seconds:.0f} s; {same} files the same")


def test_a_gpu_is_asked_for_where_there_is_one(cluster: Cluster, project: Project, finished: Project):
    (project.folder / "partitions.yaml").write_text(
        "partitions: {work: {max_runtime: 1440, max_threads: 2}, gpu: {max_runtime: 1440, max_threads: 2, max_gpu: 1}}"
    )
    # An evaluation requests a GPU, the table made from it does not.
    table = "results/tables/table1.csv"
    for missing in (f"{RUN}/metrics.json", table):
        (project.folder / missing).unlink()
    options = [*SLURM, "--slurm-partition-config", "partitions.yaml", "--config", "gpus=1"]
    call = project.snakemake(*options, "--", table)
    asked = cluster.gpus()
    jobs = [(job.partition, asked[job.number]) for job in ended(cluster, call)]
    assert jobs == [("gpu", "gres:gpu:1"), ("work", "N/A")]
    assert_same_files(project, finished)


def test_a_cancelled_training_is_reported_and_goes_on(cluster: Cluster, tmp_path: Path):
    on_cluster, at_home = make_workflow(tmp_path / "cluster"), make_workflow(tmp_path / "home")
    for project in (on_cluster, at_home):
        project.edit("recipes", "tiny", "training", "epochs", value=300)
        project.edit("recipes", "tiny", "training", "patience", value=300)

    def cancelled(*options: str) -> Ended:
        """Run the command and cancel its first training that has a new checkpoint."""
        checkpoint = on_cluster.folder / RUN / "checkpoint.safetensors"
        before = version(checkpoint)
        process = on_cluster.start_snakemake(*SLURM, f"{RUN}/model.safetensors", *options)
        process.wait_for(lambda: version(checkpoint) not in (None, before), seconds=300)
        queue = cluster.command("squeue", "--noheader", "--states=running", "--format=%i %k")
        (number,) = re.findall(r"^(\d+) rule_train", queue, flags=re.MULTILINE)
        cluster.command("scancel", number)
        return process.end()

    call = cancelled("--retries", "0")
    assert call.status == 1
    assert "SLURM status is: 'CANCELLED'" in call.output
    assert RUN.removeprefix("results/") in call.output
    # The same command resumes; interrupted once more, it retries by itself.
    call = cancelled()
    assert call.status == 0, call.output
    states = [job.state for job in ended(cluster, call)]
    assert states == ["CANCELLED", "COMPLETED"]
    at_home.snakemake(f"{RUN}/model.safetensors")
    assert_same_files(on_cluster, at_home, ("results/**/model.safetensors",))


def test_runs_as_an_array(cluster: Cluster, project: Project, finished: Project):
    runs = [RUN, "results/toy/tiger/apao-pointwise/seed42", "results/toy/llama/ce/seed42"]
    for run in runs:
        shutil.rmtree(project.folder / run)
    targets = [f"{run}/metrics.json" for run in runs]
    call = project.snakemake(*SLURM, "--slurm-array-jobs", "train,evaluate", "--", *targets)
    # All trainings are ready at once, evaluations when their trainings end.
    assert re.search(r"Submitted array job .* task IDs are 1-3", call.output)
    assert len(ended(cluster, call)) == 6
    assert_same_files(project, finished)


def test_the_generic_plugin(cluster: Cluster, project: Project, finished: Project):
    if importlib.util.find_spec("snakemake_executor_plugin_cluster_generic") is None:
        pytest.skip("Snakemake's plugin is missing: pip install snakemake-executor-plugin-cluster-generic")
    shutil.rmtree(project.folder / RUN)
    submit = "sbatch --parsable --output=/dev/null --cpus-per-task={threads} --mem={resources.mem_mb}"
    options = ["--executor", "cluster-generic", "--jobs", "10", "--default-resources", "mem_mb=2000"]
    before = len(cluster.finished())
    options += ["--cluster-generic-submit-cmd", submit, "--config", "gpus=0"]
    project.snakemake(*options, "--", f"{RUN}/metrics.json")
    assert [job.state for job in cluster.finished()[before:]] == ["COMPLETED"] * 2
    assert_same_files(project, finished)
