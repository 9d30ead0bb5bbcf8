#!/usr/bin/env bash
# Instructions per core step with 10, 1,000 and 100,000 open conversations, counted by callgrind:
# the same on every run and on a busy machine. Fails when a step with the most conversations needs
# more than LIMIT per cent of what it needs with the size before.
#   SIZES="10 1000 10000" scripts/growth.sh    is quick
set -euo pipefail
cd "$(dirname "$0")/.."
limit=${LIMIT:-175}
read -ra sizes <<<"${SIZES:-10 1000 100000}"
rounds=500
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
printf '%-8s' step
printf ' %10s' "${sizes[@]}"
echo
for step in send receive ack; do
  before=0 now=0
  printf '%-8s' $step
  for size in "${sizes[@]}"; do
    before=$now
    now=$(count $step "$size")
    printf ' %10s' "$now"
  done
  echo
  if ((before > 0 && now * 100 > before * limit)); then
    echo "$step grows beyond its limit: $now against $before" >&2
    failed=1
  fi
done
exit $failed
