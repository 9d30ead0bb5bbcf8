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
