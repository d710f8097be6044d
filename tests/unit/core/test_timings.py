"""The inequalities between time constants that the design relies on."""

from __future__ import annotations

import ast

import pytest

from ajhost.core import timings as t
from ajhost.core.timings import nanoseconds
from scripts.lib.doc_tables import PACKAGE, constants


def test_a_heartbeat_is_missed_before_it_is_stale() -> None:
    assert t.HEARTBEAT_INTERVAL < t.HEARTBEAT_MISSED < t.HEARTBEAT_STALE
    assert t.HEARTBEAT_STALE < t.HEARTBEAT_STALE_LONGEST < t.FIRST_HEARTBEAT_LIMIT


def test_a_hang_takes_three_missed_heartbeats() -> None:
    assert 3 * t.HEARTBEAT_INTERVAL < t.HEARTBEAT_STALE


def test_a_missed_heartbeat_is_noticed_by_a_calm_check_before_it_is_stale() -> None:
    assert t.CHECK_INTERVAL <= t.CHECK_INTERVAL_CALM
    assert t.HEARTBEAT_MISSED + t.CHECK_INTERVAL_CALM < t.HEARTBEAT_STALE


def test_two_checks_find_what_a_hanging_worker_owes_before_it_is_taken_for_hung() -> None:
    assert 2 * t.CHECK_INTERVAL <= t.HEARTBEAT_STALE - t.HEARTBEAT_MISSED


def test_a_check_that_is_on_time_stands_for_two() -> None:
    assert t.CHECK_ON_TIME < t.CHECK_INTERVAL < t.CHECK_INTERVAL_CALM


def test_a_machine_short_of_cpus_is_noticed_before_a_heartbeat_is_stale() -> None:
    assert t.STARVED < t.HEARTBEAT_STALE - t.HEARTBEAT_MISSED - t.CHECK_INTERVAL


def test_unread_bytes_outlast_a_few_heartbeats_and_a_lost_subscription_a_reconnect() -> None:
    assert 3 * t.HEARTBEAT_INTERVAL < t.UNREAD_LIMIT < t.UNSUBSCRIBED_LIMIT


def test_an_answer_for_a_hanging_worker_leaves_before_the_router_gives_up() -> None:
    # found by two checks, the first at most one calm interval after the deadline
    assert t.CHECK_INTERVAL_CALM + t.CHECK_INTERVAL < t.ANSWER_MARGIN + t.ROUTER_SLACK
    assert t.HEARTBEAT_STALE < t.ROUTER_SLACK


def test_a_refusal_is_answered_before_its_worker_is_taken_for_hung() -> None:
    assert t.HEARTBEAT_MISSED < t.REFUSAL_DUE < t.HEARTBEAT_STALE


def test_recovery_of_a_hung_worker_is_over_before_its_slot_is_replaced() -> None:
    assert t.STOP_LIMIT + t.DRAIN_LIMIT < t.STANDBY_SUBSCRIBE_LIMIT < t.HUNG_REPLACED_AFTER
    assert t.STANDBY_SUBSCRIBE_LIMIT + t.STOP_LIMIT + t.DRAIN_LIMIT < t.HUNG_REPLACED_AFTER


def test_a_stop_is_looked_for_often_and_tried_again_later() -> None:
    assert t.STOP_POLL < t.STOP_LIMIT / 5
    assert t.STOP_LIMIT < t.STOP_RETRY


def test_stacks_are_written_before_the_kill_and_before_a_router_gives_up() -> None:
    assert t.CHECK_INTERVAL <= t.STACKS_BEFORE_KILL < t.ROUTER_SLACK


def test_a_worker_waits_for_its_socket_to_be_stored_longer_than_the_supervisor_may_be_stopped() -> None:
    assert t.STOP_LIMIT < t.SOCKET_STORED_LIMIT


def test_an_orphan_stays_subscribed_longer_than_a_router_waits() -> None:
    assert t.ROUTER_SLACK < t.ORPHAN_GRACE


def test_an_answer_leaves_before_the_second_that_the_router_names() -> None:
    # two checks, or one sweep of the worker and one turn of its loop
    assert t.DEADLINE_SWEEP + t.TIMER_RESOLUTION < t.ANSWER_MARGIN
    assert t.CHECK_INTERVAL_CALM + t.CHECK_INTERVAL <= t.ANSWER_MARGIN


def test_a_queued_request_is_started_only_if_a_sweep_can_still_tell_its_deadline() -> None:
    assert t.TOKEN_RECHECK < t.PULL_MARGIN < t.DEADLINE_SWEEP < t.ANSWER_MARGIN


def test_a_worker_is_forked_within_the_limit_and_a_slow_fork_is_reported_before() -> None:
    # a worker needs two forks
    assert t.FORK_PROBE_SLOW < t.FORK_PROBE_LIMIT
    assert 2 * t.FORK_PROBE_LIMIT < t.FORK_LIMIT <= t.FORK_PROBE_FIRST_LIMIT
    assert t.FORK_LIMIT < t.SERVE_LIMIT
    assert 4 * t.FORK_STOPPED_INTERVAL < t.FORK_LIMIT


def test_a_new_generation_has_time_for_a_first_heartbeat() -> None:
    assert t.FIRST_HEARTBEAT_LIMIT < t.SERVE_LIMIT


def test_pauses_grow() -> None:
    assert t.RESPAWN_FIRST < t.RESPAWN_LONGEST
    assert t.RENEW_FIRST < t.RENEW_LONGEST
    assert t.RETRY_FIRST < t.LOCKED_OUT_RETRY_FIRST < t.RETRY_LONGEST < t.LOCKED_OUT_RETRY_LONGEST
    assert list(t.REPEAT_PAUSES) == sorted(t.REPEAT_PAUSES)


def test_a_slot_whose_workers_die_young_tries_again_before_a_reload_is_undone() -> None:
    assert t.RESPAWN_LONGEST < t.SERVE_LIMIT


def test_a_worker_ends_before_the_host_kills_it_at_the_end_of_a_stop() -> None:
    assert t.FLUSH_LIMIT <= t.STOP_MARGIN
    assert t.DEAD_DRAIN_LIMIT_STOPPING < t.STOP_MARGIN
    assert t.CLOSE_LIMIT < t.STOP_MARGIN
    assert t.RESTART_QUERY_LIMIT < t.STOP_MARGIN


def test_systemd_is_asked_for_more_time_before_the_time_that_it_gave_is_over() -> None:
    # `EXTEND_TIMEOUT_USEC` of twice the margin is renewed at each status
    assert t.STATUS_INTERVAL < 2 * t.STOP_MARGIN
    assert t.POLL_INTERVAL_LAST < t.POLL_INTERVAL < t.STATUS_INTERVAL


def test_the_supervisor_acts_before_a_watchdog_does() -> None:
    assert t.HEARTBEAT_STALE_LONGEST + t.STACKS_BEFORE_KILL < t.WATCHDOG_LATE < t.WATCHDOG_SLACK


def test_a_dead_workers_connection_is_read_as_long_as_a_nats_server_keeps_it() -> None:
    ping_interval, ping_max = 120.0, 2  # nats-server's defaults
    assert ping_interval * (ping_max + 1) <= t.DEAD_DRAIN_LIMIT
    assert t.DRAIN_LIMIT < t.DEAD_DRAIN_LIMIT_STOPPING < t.DEAD_DRAIN_LIMIT


def test_replies_are_repeated_for_as_long_as_a_go_router_takes_to_reconnect() -> None:
    moments, moment = [], 0.0
    for pause in t.REPEAT_PAUSES:
        moment += pause
        moments.append(moment)
    for reconnected in (1.0, 1.0 + 4.0, 1.0 + 4.0 + 7.0):  # `RetryLinearOneMinute`
        assert any(reconnected <= moment <= reconnected * 3 for moment in moments)
    assert t.RECONNECT_WINDOW_SHORTEST < t.RECONNECT_WINDOW_LONGEST <= moments[-1]


def test_a_reply_that_was_read_is_kept_for_several_confirmations() -> None:
    assert 4 * t.CONFIRM_INTERVAL < t.CONFIRMED_KEPT


def test_clocks_differ_by_less_than_is_warned_of_before_that_is_believed() -> None:
    assert t.SKEW_NOTICED < t.SKEW_WARNING < t.SKEW_PLAUSIBLE
    assert t.SKEW_WINDOW < t.SKEW_WARNING_INTERVAL


def test_steps_of_an_attempt_fit_into_it_and_a_discovered_server_has_less_time() -> None:
    assert max(t.RESOLVE_LIMIT, t.CONNECT_LIMIT, t.LOGIN_LIMIT) < t.ATTEMPT_LIMIT
    assert t.ADDRESS_STAGGER < t.DISCOVERED_CONNECT_LIMIT < t.CONNECT_LIMIT
    assert t.CONNECT_LIMIT < t.SCOUT_LIMIT


def test_a_silent_connection_is_noticed_by_two_looks_and_a_stopped_process_is_no_silent_server() -> None:
    assert 2 * t.CONNECTION_TICK <= t.PING_UNANSWERED
    assert t.CONNECTION_TICK < t.CONNECTION_TICK_LONGEST <= t.PING_UNANSWERED


def test_a_shut_gate_is_knocked_at_less_and_less() -> None:
    assert t.GATE_NEWCOMER_SPACING < t.GATE_SPACING_FIRST < t.GATE_SPACING_LAST < t.GATE_FARTHEST


def test_the_kernel_notices_a_dead_peer_after_the_connection_did() -> None:
    assert t.PING_UNANSWERED < t.TCP_PROBE_AFTER < t.TCP_UNACKNOWLEDGED_LIMIT
    assert int(t.TCP_PROBE_AFTER) == t.TCP_PROBE_AFTER
    assert int(t.TCP_PROBE_INTERVAL) == t.TCP_PROBE_INTERVAL


def test_a_check_gives_a_worker_less_time_than_a_reload_does() -> None:
    assert t.REHEARSAL_SERVE_LIMIT + t.REHEARSAL_LEAVE_LIMIT < t.SERVE_LIMIT


ELSEWHERE = {
    "adapters/nats/server_process.py": "the server of `ajhost dev`",
    "core/route_stats.py": "the bounds of histograms",
    "core/timings.py": "their home",
}
"""Modules whose fractions are no times of the host."""


def test_no_time_constant_stands_elsewhere() -> None:
    """Nearly every module constant with a fraction is a time; what is none is named in `ELSEWHERE`."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for layer in ("core", "adapters", "roles")
        for path in sorted((PACKAGE / layer).rglob("*.py"))
        if str(path.relative_to(PACKAGE)) not in ELSEWHERE
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        if not ast.unparse(node.value).startswith("Backoff(")  # how much a pause grows is no time
        if any(isinstance(part, ast.Constant) and isinstance(part.value, float) for part in ast.walk(node.value))
    ]
    assert found == [], "core/timings.py is their home"


@pytest.mark.parametrize("seconds", [0.0001, 0.005, 0.12, 0.25, 0.35, 360.0])
def test_seconds_become_nanoseconds_exactly(seconds: float) -> None:
    assert nanoseconds(seconds) / 1e9 == seconds
    assert nanoseconds(0.35) == 350_000_000


def test_every_constant_has_a_section_and_says_what_it_is() -> None:
    found = constants((PACKAGE / "core" / "timings.py").read_text())
    assert [name for rows in found.values() for name, _, meaning in rows if not meaning] == []
    names = {name for rows in found.values() for name, _, _ in rows}
    assert {name for name in vars(t) if name.isupper()} - names == {"FAR_FUTURE_NS", "REFUSAL_DUE_NS"}
