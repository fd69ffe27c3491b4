#!/usr/bin/env bash
# Writes docker/images.lock.json anew and leaves the difference as a patch for a person to review. Pushes nothing.
set -euo pipefail
# shellcheck source=ci/environment.sh
source "$(dirname "$0")/environment.sh"
bench images lock
git diff -- docker/images.lock.json | tee "$output/images-lock.patch"
