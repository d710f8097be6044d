# shellcheck shell=bash
# From a fresh clone to a .venv with the project in it. Sourced by the scripts beside it, which run in the project's root.
#
#   bootstrap EXTRA PACKAGE...    the extra of pyproject.toml that the script needs, and its Debian packages
#   bootstrap_packages PACKAGE... its first half, for who has something to do beside the second: bootstrap_venv EXTRA
#
# Nothing is fetched when everything is there: the second run needs no network. Nothing ever reads from the terminal.

readonly VENV=.venv
readonly STAMP=$VENV/.bootstrap

say() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
}

fail() {
    say "$*"
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

# Whether it can make a .venv and compile for it, as Debian's can with the packages python3-venv and python3-dev.
is_complete() {
    "$1" -c 'import ensurepip, os, sys, sysconfig, venv
sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' >/dev/null 2>&1
}

# The Python for a new .venv; empty if there is none. The system's before the one on PATH: the package runs with Debian's,
# which is built with optimizations that pyenv leaves out, and the suite takes a fifth less CPU.
find_python() {
    local candidate
    if is_new_enough /usr/bin/python3 && is_complete /usr/bin/python3; then
        echo /usr/bin/python3
        return
    fi
    for candidate in "$(command -v python3 || true)" /usr/bin/python3; do
        if [ -n "$candidate" ] && is_new_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

missing_packages() {
    local package
    for package in "$@"; do
        case "$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null)" in
            ?i*) ;;
            *) echo "$package" ;;
        esac
    done
}

apt_get() {
    local -a as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo -n)
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q "$@" </dev/null
}

# Installs those of the Debian packages that are missing, or ends with the one line that does.
need_packages() {
    local -a missing
    if ! command -v dpkg-query >/dev/null; then
        say "this is no Debian; what its packages $* hold must be here already"
        return
    fi
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] && ! sudo -n true 2>/dev/null </dev/null; then
        say "Debian packages are missing, and this user may not install them. Run this, then try again:"
        echo "    sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
        exit 1
    fi
    say "installing Debian packages: ${missing[*]}"
    local -a install=(install -y --no-install-recommends "${missing[@]}")
    if ! compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || ! apt_get "${install[@]}"; then
        apt_get update
        apt_get "${install[@]}" || fail "apt-get could not install: ${missing[*]}"
    fi
}

pip_install() {
    "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@" </dev/null
}

# As pip does at the end of an installation, but by all CPUs, and without the half that nothing here imports. Some packages
# hold modules for other versions of Python.
compile_packages() {
    local -r ask='import sysconfig; print(sysconfig.get_path("purelib"))'
    local -r unused='/site-packages/(.*/)?(pip|setuptools|pkg_resources|mypy|mypyc|tests|lexers)/'
    "$VENV/bin/python" -m compileall -q -j 0 -x "$unused" "$("$VENV/bin/python" -c "$ask")" >/dev/null 2>&1 || true
}

# What the .venv depends on: what is declared, where it lies (an editable install holds the path), and its Python.
fingerprint() {
    { cat pyproject.toml; pwd; "$VENV/bin/python" -c 'import sys; print(sys.version)'; } | sha256sum | cut -d' ' -f1
}

is_installed() {
    local extra=$1 print extras
    [ -f "$STAMP" ] || return 1
    read -r print extras <"$STAMP"
    [ "$print" = "$(fingerprint)" ] || return 1
    case " $extras " in
        *" $extra "*) return 0 ;;
        *) return 1 ;;
    esac
}

make_venv() {
    local extra=$1 python=$2 extras
    if ! is_new_enough "$VENV/bin/python"; then
        rm -rf "$VENV"
        "$python" -m venv "$VENV" || fail "could not make $VENV with $python"
    fi
    is_installed "$extra" && return
    say "installing ajhost with its extra '$extra' into $VENV"
    rm -f "$STAMP"
    pip_install --no-compile --editable ".[$extra]" || fail "pip could not install ajhost[$extra]"
    compile_packages
    extras=$extra
    [ "$extra" != test ] || extras="test demo docs"
    echo "$(fingerprint) $extras" >"$STAMP"
}

bootstrap() {
    local extra=$1
    shift
    bootstrap_packages "$@"
    bootstrap_venv "$extra"
}

bootstrap_packages() {
    # systemd-python comes as source
    local -a packages=(gcc pkg-config libsystemd-dev ca-certificates "$@")
    case "$(find_python)" in
        '' | /usr/bin/python3) packages+=(python3 python3-venv python3-dev) ;;
    esac
    need_packages "${packages[@]}"
}

bootstrap_venv() {
    local extra=$1 python
    python=$(find_python)
    [ -n "$python" ] || fail "Python 3.11 or newer is needed; python3 is $(python3 --version 2>&1 || true)"
    make_venv "$extra" "$python"
    PATH="$PWD/$VENV/bin:$PATH"
    export PATH
}
