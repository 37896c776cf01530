# Shared by the scripts beside it: finds a Python, makes virtual environments.  Sourced, not run.

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONPATH PYTHONHOME

say() { printf '%s\n' "$*" >&2; }
die() { say "$0: $*"; exit 1; }

find_python() {  # prints a Python of 3.11 or later
    local candidate
    for candidate in ${PYTHON:-} python3.11 python3 python3.12 python3.13; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "no Python 3.11 or later (Debian 12: apt-get install python3 python3-venv)"
}

apt_works() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

apt_install() {  # installs Debian packages; the list is refreshed once where that is needed; starts no service
    local options=(-qq -y --no-install-recommends -o DPkg::Lock::Timeout=120) policy=/usr/sbin/policy-rc.d made= status=0
    export DEBIAN_FRONTEND=noninteractive
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && made=1
    fi
    apt-get "${options[@]}" install "$@" >/dev/null 2>&1 ||
        { apt-get -qq update >/dev/null && apt-get "${options[@]}" install "$@" >/dev/null; } || status=$?
    [ -z "$made" ] || rm -f "$policy"
    return "$status"
}

leave_off() {  # a service that came with a package is not to start with the machine either
    command -v systemctl >/dev/null && systemctl --quiet disable "$@" >/dev/null 2>&1
    return 0
}

make_venv() {  # an empty virtual environment at $1, with a pip that knows dependency groups
    local python
    python=$(find_python) || return
    rm -rf -- "$1"
    if ! "$python" -c 'import ensurepip' 2>/dev/null; then
        # Debian keeps venv's pip in a package of its own
        apt_works && apt_install python3-venv || die "cannot make a virtual environment: apt-get install python3-venv"
    fi
    "$python" -m venv "$1"
    "$1/bin/pip" install -qq 'pip>=25.1'
}

stamp_of() {  # what an environment was made from: a change of it makes a new one
    { printf '%s\n' "$@"; cat "$TOP/pyproject.toml"; } | sha256sum | cut -d' ' -f1
}

fresh() { [ -x "$1/bin/python" ] && [ "$(cat "$1/stamp" 2>/dev/null)" = "$2" ]; }  # environment, stamp
