#!/usr/bin/env bash
# Instructions per core step with 10, 1,000 and 100,000 open conversations, counted by callgrind:
# the same on every run and on a busy machine. Fails when a step with 100,000 needs more than
# LIMIT per cent of what it needs with 1,000.
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${LIMIT:-125}
rounds=2000
cargo build --quiet --release --locked -p benches --bin growth
bin="${CARGO_TARGET_DIR:-target}/release/growth"
out=$(mktemp)
trap 'rm -f "$out"' EXIT

count() { # step, conversations
  valgrind --tool=callgrind --callgrind-out-file="$out" --collect-atstart=no \
    --toggle-collect='growth::measured*' "$bin" "$1" "$2" "$rounds" 2>&1 |
    awk -v rounds="$rounds" '/Collected/ { print int($NF / rounds) }'
}

failed=0
printf '%-8s %10s %10s %10s\n' step 10 1,000 100,000
for step in send receive ack; do
  few=$(count $step 10)
  some=$(count $step 1000)
  many=$(count $step 100000)
  printf '%-8s %10s %10s %10s\n' $step "$few" "$some" "$many"
  if (( many * 100 > some * limit )); then
    echo "$step grows by more than its limit: $many against $some" >&2
    failed=1
  fi
done
exit $failed
