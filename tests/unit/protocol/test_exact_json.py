"""JSON of foreign programs: no digit is lost, and what JSON does not have is an error."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ajhost.api import InvalidPayload, Task, TerminateTask
from ajhost.protocol.exact_json import loads, loads_digits
from ajhost.protocol.task_record import encode_task, read_task

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**60, max_value=2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(_VALUES, st.sampled_from([None, 1]))
def test_whatever_json_can_say_is_read_as_it_was_written(value: Any, indent: int | None) -> None:
    assert loads(json.dumps(value, indent=indent).encode()) == value


@pytest.mark.parametrize("digits", [18, 19, 20, 21, 40, 400, 4300])
@pytest.mark.parametrize("sign", ["", "-"])
@pytest.mark.parametrize("before", range(7))
def test_an_integer_of_any_length_is_exact_wherever_it_stands(digits: int, sign: str, before: int) -> None:
    text = f'{{"{"x" * before}":[{sign}{"9" * digits}]}}'
    assert loads(text.encode()) == {"x" * before: [int(f"{sign}{'9' * digits}")]}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b'{"a":NaN}', "NaN is no number of JSON's"),
        (b"[1,Infinity]", "Infinity is no number of JSON's"),
        (b"-Infinity", "-Infinity is no number of JSON's"),
        (b'{"a":1e999}', "beyond the range of a double"),
        (b"\xff", "UTF-8"),
        (b"{", "line 1"),
        (b"9" * 5000, "digits"),
        (b"[" + b"9" * 400 + b',"\\ud800"]', "surrogates"),
    ],
)
def test_what_is_not_json_is_an_error_that_names_it(text: bytes, part: str) -> None:
    with pytest.raises(ValueError, match=part):
        loads(text)


@pytest.mark.parametrize(
    "text",
    [
        f'"{"1" * 100_000}"',
        f"[{'1' * 16}.5{', 1' * 50_000}]",
        f'"{"1." * 50_000}"',
        f"{'[' * 1000}1.00000000000000001{']' * 1000}",
    ],
    ids=["one run of digits", "many numbers", "many points", "many levels"],
)
def test_digits_of_any_shape_are_looked_for_in_one_pass(text: str) -> None:
    """Anybody may send a megabyte of digits, and with a search for each of them it would take a worker minutes."""
    began = time.process_time()
    loads_digits(text.encode())
    assert time.process_time() - began < 1.0


def task_of(payload: bytes) -> Task:
    body = encode_task(id="T", type="a", queue="Q", payload=payload, created_ns=0, tried_ns=0)
    return Task(read_task(body), 1e12)


def test_a_tasks_json_is_exact() -> None:
    assert task_of(b'{"iban":123456789012345678901234567890}').json() == {"iban": 123456789012345678901234567890}


@pytest.mark.parametrize("payload", [b"", b"NaN", b"{", b'{"a": Infinity}'])
def test_a_payload_that_is_not_json_ends_the_task_unless_it_is_caught(payload: bytes) -> None:
    with pytest.raises(TerminateTask, match="^invalid payload: "):
        task_of(payload).json()
    with pytest.raises(ValueError, match="JSON"):
        task_of(payload).json()
    assert issubclass(InvalidPayload, TerminateTask)


@pytest.mark.parametrize("bits", [70, 2000])
def test_dependency_results_are_exact(bits: int) -> None:
    body = b'{"id":"T","type":"a","payload":null,"dependency_results":{"D":{"payload":%d}}}' % (1 << bits)
    assert read_task(body).dependency_results == {"D": {"payload": 1 << bits}}
