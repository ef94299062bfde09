"""A project that DVC knows, and what DVC ran in it."""

import re
import shutil

from helpers.project import ROOT, Project


def committed(project: Project) -> Project:
    """The project as a git repository that DVC knows."""
    project.run("apao", "dvc")
    for command in (["init", "-q"], ["config", "user.email", "a@b.c"], ["config", "user.name", "a"]):
        project.run("git", *command)
    shutil.copy(ROOT / ".gitignore", project.folder)
    project.run("dvc", "init", "-q")
    shutil.copy(ROOT / ".dvcignore", project.folder)
    project.run("dvc", "config", "core.analytics", "false")
    commit(project)
    return project


def commit(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", "commit", "-q", "-m", "state")


def ran(printed: str) -> list[str]:
    return re.findall(r"^Running stage '([^']+)'", printed, flags=re.MULTILINE)
