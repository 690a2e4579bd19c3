# Sourced by the scripts beside it: installs the Debian packages that flistfs needs, and flistfs itself into .venv.
# setup EXTRA [PACKAGE...]    both, with the optional dependencies EXTRA of the project and further packages
# FLISTFS_PYTHON=COMMAND      the Python to make .venv with, instead of the best one found
# FLISTFS_SKIP_PACKAGES=1     install no Debian packages

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv="$project/.venv"

# For mounting, and for compiling pyfuse3, which has no wheels.
build_packages=(fuse3 gcc libc6-dev libfuse3-dev pkg-config python3-dev python3-venv)

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# run_step WHAT COMMAND...   Runs a command that is silent for long, shows on a terminal that it is still at work, and
# for how long; its output is shown if it fails.
run_step() {
    local what="$1" output ticker= code=0 started=$SECONDS
    shift
    if [ -t 2 ]; then
        # Ends with this script, also where Ctrl-C kills that without a word.
        (while kill -0 "$$" 2>/dev/null; do
            printf '\r   %s: %d s' "$what" $((SECONDS - started)) >&2
            sleep 1
        done) >/dev/null &
        ticker=$!
    fi
    output=$("$@" 2>&1) || code=$?
    if [ -n "$ticker" ]; then
        kill "$ticker"
        wait "$ticker" 2>/dev/null || true
        printf '\r\033[K' >&2
    fi
    if [ "$code" != 0 ]; then
        printf '%s\n' "$output" >&2
        return "$code"
    fi
    printf '   %s: %d s\n' "$what" $((SECONDS - started)) >&2
}

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
        die "this is not a Debian-like system; install the equivalents of these Debian packages, then run" \
            "${0##*/} with FLISTFS_SKIP_PACKAGES=1: $*"
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    say "Installing Debian packages: ${missing[*]}"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null \
        || die "sudo is not installed; run this as root: apt-get install ${missing[*]}"
    as_root true || true # sudo asks for its password now, not over the line that counts seconds
    run_step "Reading the lists of packages" as_root apt-get update -qq
    # RUNLEVEL=1 keeps installed servers from starting: the tests start their own.
    run_step "Installing them" as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# With udev, every user may open /dev/fuse. Without it, as in a container, arrange that here.
setup_fuse() {
    [ -e /dev/fuse ] || as_root modprobe fuse 2>/dev/null \
        || die "/dev/fuse does not exist; load the fuse module, or start the container with --device /dev/fuse" \
            "--cap-add SYS_ADMIN"
    [ -r /dev/fuse ] && [ -w /dev/fuse ] && return
    say "Making /dev/fuse accessible to all users, as udev does"
    as_root chmod a+rw /dev/fuse
}

# The Python to make .venv with: FLISTFS_PYTHON if that is set; else the first of these that was built optimised,
# as Debian's own is (a fifth faster throughout); else the first that can run flistfs.
find_python() {
    local candidate build plain=
    if [ -n "${FLISTFS_PYTHON:-}" ]; then
        command -v "$FLISTFS_PYTHON" >/dev/null || die "FLISTFS_PYTHON=$FLISTFS_PYTHON: no such command"
        build=$("$FLISTFS_PYTHON" "$project/scripts/python_build.py" 2>&1) \
            || die "FLISTFS_PYTHON=$FLISTFS_PYTHON cannot be used: ${build##*$'\n'}"
        command -v "$FLISTFS_PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        build=$("$candidate" "$project/scripts/python_build.py" 2>/dev/null) || continue
        if [ "$build" = optimised ]; then
            command -v "$candidate"
            return
        fi
        [ -n "$plain" ] || plain=$(command -v "$candidate")
    done
    [ -n "$plain" ] || die "no usable Python found: 3.11 or newer with its venv module and its headers is needed" \
        "(Debian: python3-dev, python3-venv); FLISTFS_PYTHON names one that is not on the PATH"
    echo "$plain"
}

# Which Python a command runs, whatever virtual environment or wrapper it is started through.
identity() { "$1" -c 'import sys; print(sys.base_prefix, sys.version)' 2>/dev/null; }

# Whether .venv is there and whole. A Python that the system has replaced by a newer one no longer finds what is
# installed in it.
works() {
    "$venv/bin/python" -I -c 'import importlib.util as i, sys; sys.exit(not i.find_spec("pip"))' 2>/dev/null
}

# Whether .venv has the project with the dependencies EXTRA. Whatever its extras are, it has the project itself.
# The Python that it was made with is not asked after, save with FLISTFS_PYTHON: whoever uses it keeps it.
has_venv() {
    local stamp
    for stamp in "$venv"/.stamp-${1:-*}; do
        [ -e "$stamp" ] && [ ! "$project/pyproject.toml" -nt "$stamp" ] || continue
        works || return
        [ -z "${FLISTFS_PYTHON:-}" ] || [ "$(identity "$venv/bin/python")" = "$(identity "$FLISTFS_PYTHON")" ]
        return
    done
    return 1
}

# Makes or updates .venv. One that another Python made is made anew, but only when something must be installed anyway.
setup_venv() {
    local extras="${1:-}" stamp="$venv/.stamp-${1:-plain}" python
    has_venv "$extras" && return
    python=$(find_python)
    say "Setting up $venv with $("$python" --version) ($(command -v "$python"))"
    if ! works || [ "$(identity "$venv/bin/python")" != "$(identity "$python")" ]; then
        "$python" -m venv --clear "$venv"
    fi
    run_step "Installing flistfs and what it needs" \
        "$venv/bin/python" -m pip install -q --disable-pip-version-check -e "$project${extras:+[$extras]}"
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
