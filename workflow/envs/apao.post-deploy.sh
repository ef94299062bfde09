#!/usr/bin/env bash
# Fills the environment from the same lock file as `make setup`; runs in the project's folder.
set -euo pipefail
pip install --requirement requirements.lock
pip install --no-deps --editable .
