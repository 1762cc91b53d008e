# Shared by scripts/demo, scripts/test and scripts/bench: a virtual environment, and system packages where they may be installed.
# Sourced, not run.

say() { printf '%s\n' "$*" >&2; }

# make_venv DIR PIP-ARGUMENTS...: a virtual environment with these packages, brought up to date only when pyproject.toml changed.
make_venv() {
    local dir=$1; shift
    local stamp="$dir/.installed" wanted
    wanted=$(printf '%s\n' "$@"; cat pyproject.toml)
    if [ -x "$dir/bin/python" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
        say "Python 3.10 or later is needed; this is $(python3 --version)."
        exit 1
    fi
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        need_packages "virtual environments" python3-venv
    fi
    say "Making a virtual environment in $dir ..."
    python3 -m venv "$dir"
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check "$@"
    printf '%s' "$wanted" > "$stamp"
}

# need_packages WHY PACKAGE...: install Debian/Ubuntu packages where this user may, else say what to ask the administrator for.
need_packages() {
    local why=$1; shift
    local missing=() root=()
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        if sudo -n true 2>/dev/null; then
            root=(sudo -n)
        else
            say "For $why, root has to install: ${missing[*]}"
            say "    sudo apt-get install -y ${missing[*]}"
            exit 1
        fi
    fi
    say "Installing ${missing[*]} (for $why; this is what root is needed for) ..."
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -qq
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# need_fuse: fusermount3 and libfuse 3, and a /dev/fuse.
need_fuse() {
    if command -v fusermount3 >/dev/null && /sbin/ldconfig -p | grep -q 'libfuse3\.so'; then
        return
    fi
    if ! command -v apt-get >/dev/null; then
        say "Install your system's package of FUSE 3 (fuse3), then run this again."
        exit 1
    fi
    need_packages "mounting (FUSE)" fuse3
}
