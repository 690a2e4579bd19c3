# Sourced by the scripts beside it: installs what flistfs needs into .venv, whatever the machine lacks.
# setup_packages PACKAGE...   Debian packages, installed if one of them is missing
# setup_venv EXTRA...         .venv with the project in it (editable), with its optional dependencies EXTRA

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$project/.venv"

# What pyfuse3 is compiled with, and what mounts: pyfuse3 has no wheel.
build_packages=(fuse3 gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv)

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing_packages() {
    local package
    for package in "$@"; do
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
    done
}

setup_packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        die "this is no Debian-like system; install what these Debian packages hold, then call" \
            "${0##*/} with FLISTFS_SKIP_PACKAGES=1: $*"
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    say "Installing Debian packages: ${missing[*]}"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null \
        || die "not root, and there is no sudo; ask an administrator for: apt-get install ${missing[*]}"
    as_root apt-get update -qq >&2
    # No server may start by itself here: the tests start their own.
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# On a Debian with udev everybody may open /dev/fuse; where there is no udev (a container), see to it.
setup_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null \
        || die "there is no /dev/fuse; load the fuse module, or start the container with --device /dev/fuse" \
            "--cap-add SYS_ADMIN"
    [ -r /dev/fuse ] && [ -w /dev/fuse ] && return
    say "Letting everybody open /dev/fuse, as udev does"
    as_root chmod a+rw /dev/fuse
}

find_python() {
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    die "Python 3.11 or newer with its venv module is needed"
}

# Whether .venv has the project with the dependencies EXTRA. Whatever its extras are, it has the project itself.
has_venv() {
    local stamp
    for stamp in "$venv"/.stamp-${1:-*}; do
        [ -e "$stamp" ] && [ ! "$project/pyproject.toml" -nt "$stamp" ] || continue
        "$venv/bin/python" -c '' 2>/dev/null && return
    done
    return 1
}

setup_venv() {
    local extras="${1:-}" stamp="$venv/.stamp-${1:-plain}"
    has_venv "$extras" && return
    say "Setting up $venv"
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$(find_python)" -m venv --clear "$venv"
    "$venv/bin/python" -m pip install -q --disable-pip-version-check -e "$project${extras:+[$extras]}" >&2
    touch "$stamp"
}

setup() {
    local extras="$1"
    shift
    [ "${FLISTFS_SKIP_PACKAGES:-}" = 1 ] || setup_packages "${build_packages[@]}" "$@"
    setup_fuse
    setup_venv "$extras"
    # Where the environment forbids Python to keep bytecode, every command would compile all of flistfs anew: 0.15 s.
    "$venv/bin/python" -m compileall -q "$project/flistfs"
}
