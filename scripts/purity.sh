#!/usr/bin/env bash
# chat-core has no runtime, no entropy source, few dependencies and one hash map, which is never
# walked; no unsafe code anywhere.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$(cargo tree --locked -p chat-core -e normal --prefix none --no-dedupe | awk '{print $1}' | sort -u)
for banned in tokio mio getrandom rand; do
  if grep -qx "$banned" <<<"$tree"; then
    echo "chat-core depends on $banned: it must stay pure"
    exit 1
  fi
done
count=$(wc -l <<<"$tree")
if [ "$count" -ge 40 ]; then
  echo "chat-core pulls in $count crates; the limit is 39"
  exit 1
fi
hashed=$(grep -rlE 'Hash(Map|Set)|RandomState|DefaultHasher' chat-core/src | grep -v '^chat-core/src/slots.rs$' || true)
if [ -n "$hashed" ] || grep -nE 'index\.(iter|keys|values|drain|retain|into_)' chat-core/src/slots.rs; then
  echo "a hash map outside chat-core/src/slots.rs, or one that is walked: $hashed"
  exit 1
fi
for manifest in chat-*/Cargo.toml benches/Cargo.toml; do
  if ! grep -A1 '^\[lints\]' "$manifest" | grep -q 'workspace = true'; then
    echo "$manifest does not take the workspace lints, which forbid unsafe code"
    exit 1
  fi
done
echo "chat-core: $count crates, no runtime, no entropy source"
