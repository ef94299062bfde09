"""Imports of the command line before it knows what to compute."""

import subprocess
import sys

LATE = ("torch", "pandas", "numpy", "matplotlib", "scipy", "sklearn", "transformers")


def test_help_imports_nothing_heavy():
    code = "import sys; from apao.cli import app; app(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "recommenders" in done.stdout
    assert not set(LATE) & set(done.stdout.splitlines()[-1].split())
