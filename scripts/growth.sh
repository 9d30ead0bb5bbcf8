#!/usr/bin/env bash
# What a step of the core costs with 10, 1,000, 10,000 and 100,000 open conversations that all take
# turns, and in a group of 10, 100 and 1,000: instructions, counted by callgrind, the same on every
# run and on a busy machine. Fails when a step needs more than LIMIT per cent of what it needs with
# the smallest number; an acknowledgement in a group also finds its member among all, by name.
#   SIZES="10 1000" MEMBERS="10 100" scripts/growth.sh      is quick
#   TIME=1 scripts/growth.sh               prints CPU nanoseconds instead: all in turn, and 64 of all
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${LIMIT:-110}
by_name=${BY_NAME:-150}
read -ra members <<<"${MEMBERS:-10 100 1000}"
read -ra sizes <<<"${SIZES:-10 1000 10000 100000}"
rounds=500 # as many as growth.rs counts
cargo build --quiet --release --locked -p benches --bin growth
bin="${CARGO_TARGET_DIR:-target}/release/growth"
out=$(mktemp)
trap 'rm -f "$out"' EXIT

count() { # step, conversations
  valgrind --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no \
    --toggle-collect='growth::measured*' "$bin" count "$1" "$2" "$2" 2>&1 |
    awk -v rounds="$rounds" '/Collected/ { print int($NF / rounds) }'
}

row() { # name, figures
  printf '%-16s' "$1"
  printf ' %10s' "${@:2}"
  echo
}

row step "${sizes[@]}"
if [[ -n ${TIME:-} ]]; then
  for step in send receive ack; do
    all=() few=()
    for size in "${sizes[@]}"; do
      all+=("$("$bin" time "$step" "$size" "$size")")
      few+=("$("$bin" time "$step" "$size" "$((size < 64 ? size : 64))")")
    done
    row "$step, all" "${all[@]}"
    row "$step, 64" "${few[@]}"
  done
  exit
fi
failed=0
grow() { # step, limit, sizes
  local step=$1 most=$2 counts=()
  shift 2
  for size in "$@"; do
    counts+=("$(count "$step" "$size")")
  done
  row "$step" "${counts[@]}"
  for now in "${counts[@]}"; do
    if ((now * 100 > counts[0] * most)); then
      echo "$step grows beyond its limit: $now against ${counts[0]}" >&2
      failed=1
    fi
  done
}

for step in send receive ack; do
  grow $step "$limit" "${sizes[@]}"
done
row members "${members[@]}"
grow group-send "$limit" "${members[@]}"
for step in group-ack group-receipt; do
  grow $step "$by_name" "${members[@]}"
done
exit $failed
