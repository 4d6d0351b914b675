#!/bin/sh
# Installs the sections of deps/apt.txt and deps/python.txt named on the command line, and nothing that is there already.
#   sh deps/install.sh build [test] [lint]
# apt and pip run with whatever this machine has configured: no index, mirror or proxy is named here.
set -eu
cd "$(dirname "$0")/.."

# The lines of one section of a list, without comments.
section() {
  awk -v wanted="$2" '/^# section: / { here = $3 } !/^#/ && NF && here == wanted { print $1 }' "$1"
}

note() { printf '%s\n' "install: $*"; }

fail() {
  printf '%s\n' "error: $1" "  at:       $2" "  fix:      $3" >&2
  exit 71
}

install_apt() {
  wanted=$(for name in "$@"; do section deps/apt.txt "$name"; done)
  [ -n "$wanted" ] || return 0
  command -v dpkg-query >/dev/null || fail "this is no Debian machine" "deps/apt.txt" \
    "install the packages of deps/apt.txt by other means, or build in a Debian 12 container"
  # shellcheck disable=SC2086  # one word a package
  present=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | awk '$1 == "installed" { print $2 }' || true)
  missing=
  for package in $wanted; do
    printf '%s\n' "$present" | grep -qxF "$package" || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  run=
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "packages are missing and only root may install them" "deps/apt.txt" \
      "as root: apt-get install --no-install-recommends$missing"
    run=sudo
  fi
  note "apt packages:$missing"
  options="-o DPkg::Lock::Timeout=300 -q"
  # shellcheck disable=SC2086
  $run env DEBIAN_FRONTEND=noninteractive apt-get $options update
  # --no-remove: a demo must not uninstall anything; apt stops instead.
  # shellcheck disable=SC2086
  $run env DEBIAN_FRONTEND=noninteractive apt-get $options install -y --no-remove --no-install-recommends $missing
}

# Headers of packages that would take another version's place: into .deps/NAME, installed nowhere.
unpack_headers() {
  for package in $(section deps/apt.txt headers); do
    folder=.deps/$package
    [ ! -f "$folder/unpacked" ] || continue
    note "headers of $package into .deps"
    rm -rf "$folder"
    mkdir -p "$folder"
    (
      cd "$folder"
      if ! apt-get -q download "$package"; then
        [ "$(id -u)" = 0 ] || fail "the package lists are out of date" "deps/apt.txt" "as root: apt-get update"
        apt-get -q update
        apt-get -q download "$package"
      fi
      dpkg -x "$package"_*.deb .
      rm "$package"_*.deb
    )
    touch "$folder/unpacked"
  done
}

install_python() {
  # Debian's own interpreter where there is one: the wheels are for it.
  python=/usr/bin/python3
  [ -x "$python" ] || python=python3
  for name in "$@"; do
    wanted=$(section deps/python.txt "$name")
    [ -n "$wanted" ] || continue
    # The stamp holds the list itself, so that a changed pin installs again and a touched file does not.
    stamp=.venv/installed-$name.txt
    if [ -f "$stamp" ] && [ "$wanted" = "$(cat "$stamp")" ] && [ -x .venv/bin/python ]; then continue; fi
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
      note "virtual environment .venv"
      "$python" -m venv --clear .venv
    fi
    note "python packages of section $name into .venv"
    printf '%s\n' "$wanted" >.venv/requirements.txt
    # What only benches want stays apart: transformers imports torchvision wherever it is installed.
    target=
    [ "$name" != bench ] || target="--upgrade --target .venv/bench"
    # shellcheck disable=SC2086  # two words or none
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $target -r .venv/requirements.txt
    if [ "$name" = build ] && ! .venv/bin/python -c 'import torch' >/dev/null 2>&1; then
      # The CUDA build does not load without the libraries it depends on; the pins above still hold for the rest.
      note "this index has torch's CUDA build: its libraries too (some gigabytes)"
      .venv/bin/python -m pip install --quiet --disable-pip-version-check -r .venv/requirements.txt
      .venv/bin/python -c 'import torch'
    fi
    printf '%s\n' "$wanted" >"$stamp"
  done
}

[ $# -gt 0 ] || fail "no section named" "deps/install.sh" "sh deps/install.sh build"
install_apt "$@"
case " $* " in *" build "*) unpack_headers ;; esac
install_python "$@"
