# shellcheck shell=bash
# A Prometheus for tests of metrics, alert rules and the dashboard: the machine's, else Debian's package, unpacked into the
# .venv and not installed: installing it would start a server.

# Without it the tests that need it are skipped and say so: the suite goes on.
need_prometheus() {
    local at="$VENV/prometheus"
    if command -v promtool >/dev/null && command -v prometheus >/dev/null || [ -x "$at/usr/bin/promtool" ]; then
        return
    fi
    say "unpacking Debian's prometheus (19 MB) into $at, for tests of the metrics"
    local work
    work=$(mktemp -d)
    if (cd "$work" && apt-get -q download prometheus) >/dev/null 2>&1 </dev/null \
        || { apt_get update >/dev/null && (cd "$work" && apt-get -q download prometheus) >/dev/null 2>&1 </dev/null; }; then
        dpkg-deb -x "$work"/prometheus_*.deb "$at"
    else
        say "no prometheus: the tests that ask it will be skipped"
    fi
    rm -rf "$work"
}
