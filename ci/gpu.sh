#!/usr/bin/env bash
# On a GPU machine: the images, the machine's health, and matched runs there.  gpu.sh [RECIPE ...]
set -euo pipefail
# shellcheck source=ci/environment.sh
source "$(dirname "$0")/environment.sh"
bench images lock --check
bench images build cpu cuda "${build_options[@]}"
# Warnings (1) let it go on; problems (3) do not.
code=0
bench doctor --tier reference --json >"$output/doctor.json" || code=$?
if (( code > 1 )); then
  cat "$output/doctor.json"
  exit "$code"
fi
for recipe in "${@:-sana}"; do
  bench run "$recipe" --tier micro --executor docker --json >"$output/run-$recipe.jsonl"
done
bench clean --all
