#!/usr/bin/env bash
# Installs apao into the environment; runs in the project's folder. In a checkout that is the same lock file as that of
# `make setup`. A folder made by `apao init` has none: pip takes the package from its index, or from the folder of wheels
# that PIP_FIND_LINKS names.
set -euo pipefail
if [ -f requirements.lock ]; then
    pip install --requirement requirements.lock
    pip install --no-deps --editable .
else
    pip install 'apao[embed,workflow]'
fi
