#!/usr/bin/env bash
# Installs the same lock file as `make setup` into the environment; runs in the project's folder.
set -euo pipefail
pip install --requirement requirements.lock
pip install --no-deps --editable .
