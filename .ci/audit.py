"""Known vulnerabilities of the locked packages, found by pip-audit on PyPI: ``make audit``.

Fails only if there are some. If the index is unreachable, it prints that after a few seconds and succeeds.
pip-audit is installed into a temporary environment, so it is not a dependency of the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

from pip._internal.models.index import PyPI

LOCK = Path(__file__).parents[1] / "requirements.lock"
KNOWN = f"{PyPI.pypi_url}/urllib3/1.26.4/json"
"""A version with known vulnerabilities: an index that reports none for it reports none for any package."""
PATIENCE = 5.0
AUDIT_SECONDS = 120


def main() -> int:
    """Exit status."""
    try:
        with urllib.request.urlopen(KNOWN, timeout=PATIENCE) as answer:  # noqa: S310 - pip's own https address
            named = json.load(answer)["vulnerabilities"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        return _not_checked(f"{KNOWN} cannot be read ({error})")
    if not named:
        return _not_checked(f"{KNOWN} names no vulnerabilities, though there are some")
    with TemporaryDirectory(prefix="apao-audit-") as folder:
        found = Path(folder, "found.json")
        programs = Path(folder, "environment", "bin")
        try:
            venv.create(programs.parent, with_pip=True)
            _run(str(programs / "pip"), "install", "--quiet", "--disable-pip-version-check", "pip-audit")
            # The lock is complete, so pip-audit need not resolve or install anything.
            wanted = ["--requirement", str(LOCK), "--no-deps", "--disable-pip"]
            _run(str(programs / "pip-audit"), *wanted, "--format", "json", "--output", str(found))
            packages = json.loads(found.read_text())["dependencies"]
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            return _not_checked(f"pip-audit failed ({error})")
    skipped = [package["name"] for package in packages if "skip_reason" in package]
    weak = [package for package in packages if package.get("vulns")]
    for package in weak:
        for each in package["vulns"]:
            fixed = ", ".join(each["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {each['id']}, fixed in {fixed}")
    checked = len(packages) - len(skipped)
    print(f"audit: {checked} locked packages checked, {len(weak)} with known vulnerabilities")
    if skipped:
        print(f"audit: NOT checked, because they are not in the index: {', '.join(skipped)}")
    return 1 if weak else 0


def _run(*command: str) -> None:
    """Run a command to its end. The status is ignored: pip-audit returns 1 for findings and for failures alike."""
    subprocess.run(command, timeout=AUDIT_SECONDS, check=False)


def _not_checked(why: str) -> int:
    print(f"audit: {why}; the locked packages were NOT checked for known vulnerabilities")
    return 0


if __name__ == "__main__":
    sys.exit(main())
