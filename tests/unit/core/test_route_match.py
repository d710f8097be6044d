"""Which configured route serves a task."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ajhost.core.route_match import Routes

ROUTES = ("email:new", "email:", "email", "sms", "")


@pytest.mark.parametrize(
    ("routes", "asked", "task_type", "served"),
    [
        (ROUTES, "email:new", "email:new", "email:new"),
        (ROUTES, "email:", "email:old", "email:"),
        (ROUTES, "email", "emailx", "email"),
        (ROUTES, "", "other", ""),
        # finer than the router knows
        (ROUTES, "", "email:new", "email:new"),
        (ROUTES, "email", "email:newer", "email:new"),
        # coarser than the router asked for, because the finer one is not configured here
        (("email", ""), "email:new", "email:new", "email"),
        (("",), "email:new", "email:new", ""),
        # the subject's route is configured, so nothing coarser takes its place
        (("email:new", "email"), "email:new", "email:old", "email:new"),
        (("email", ""), "email", "sms", "email"),
        # nothing serves it
        (("email",), "", "sms", None),
        (("email:new",), "email", "email", None),
        ((), "email", "email", None),
    ],
)
def test_the_route_of_a_task(routes: tuple[str, ...], asked: str, task_type: str, served: str | None) -> None:
    table = Routes(routes)
    assert table.match(asked, task_type) == served
    assert table.match(asked, task_type) == served, "the answer that was kept"


NAMES = st.text("ab:", max_size=4)


@given(st.frozensets(NAMES, max_size=8), NAMES, NAMES)
@settings(max_examples=300)
def test_an_answer_is_configured_and_the_most_specific(routes: frozenset[str], asked: str, task_type: str) -> None:
    found = Routes(routes).match(asked, task_type)
    serving = [route for route in routes if task_type.startswith(route)]
    if found is None:
        assert not serving
        assert asked not in routes
    else:
        assert found in routes
        assert len(found) >= max((len(route) for route in serving), default=0)
        assert asked not in routes or len(found) >= len(asked)


def test_what_is_kept_does_not_change_an_answer_however_many_types_come() -> None:
    table = Routes(ROUTES)
    for number in range(10_000):
        assert table.match("", f"email:{number}") == "email:"
        assert table.match("", "x" * 300 + str(number)) == ""
    assert table.match("", "email:new") == "email:new"
