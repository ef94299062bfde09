"""The command ``init``: a new project folder, which runs there without a checkout of the project.

The files are the repository's own. They exist once: ``assets`` holds links to them, which the build of the package
replaces by their content.
"""

from __future__ import annotations

import shutil
from contextlib import chdir
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory

from apao import __version__
from apao.engines.dvc import DVC_FILE, write_pipeline
from apao.errors import UserError
from apao.study.params import load
from apao.study.paths import PARAMS_FILE

ASSETS = Path(__file__).parent / "assets"
README = "README.md"


def new_project(folder: Path) -> list[Path]:
    """Write ``params.yaml``, ``tuned.yaml``, ``workflow``, ``dvc.yaml`` and a README into a folder.

    Args:
        folder: a new folder, or one that has none of these files.

    Returns:
        What was written.

    Raises:
        UserError: when one of them exists, or cannot be written; nothing is overwritten.
    """
    copied = sorted(path.name for path in ASSETS.iterdir())
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder")
    for name in (*copied, DVC_FILE.name):
        if (folder / name).exists():
            raise UserError(f"{folder / name}: exists and would be overwritten; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    # Copied first and then renamed: after a full disk the command can be repeated.
    with TemporaryDirectory(dir=folder, prefix=".init-") as temporary:
        made = Path(temporary)
        try:
            shutil.copytree(ASSETS, made, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        except shutil.Error as error:
            _, path, reason = error.args[0][0]
            raise UserError(f"{path}: cannot be written ({reason})") from error
        text = Template((made / README).read_text(encoding="utf-8")).substitute(version=__version__)
        (made / README).write_text(text, encoding="utf-8")
        for name in copied:
            (made / name).rename(folder / name)
    with chdir(folder):
        write_pipeline(load(PARAMS_FILE))
    return [folder / name for name in (*copied, DVC_FILE.name)]
