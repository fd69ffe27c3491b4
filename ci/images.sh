#!/usr/bin/env bash
# Builds images, verifies them, and makes one small run in the cpu image:  images.sh cpu|cuda ...
set -euo pipefail
(( $# )) || { echo "usage: ci/images.sh cpu|cuda ..." >&2; exit 2; }
# shellcheck source=ci/environment.sh
source "$(dirname "$0")/environment.sh"
bench images lock --check
for target in "$@"; do
  bench images build "$target" "${build_options[@]}" --json | tee "$output/image-$target.json"
done
bench images verify "$@"
if [[ " $* " == *" cpu "* ]]; then
  bench run sana --tier smoke --executor docker --json >"$output/run.jsonl"
fi
