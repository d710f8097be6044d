"""Plans through JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest

from ajhost.protocol.dataclass_json import from_object
from ajhost.roles.process_specs import GenerationSpec, WorkerSpec
from ajhost.settings.sections import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    TlsSettings,
    WorkerSettings,
)


def _spec(nats: NatsSettings, handlers: tuple[HandlerSettings, ...]) -> GenerationSpec:
    return GenerationSpec(
        generation=7,
        runtime=Path("/run/ajhost"),
        nats=nats,
        python=PythonSettings(path=(Path("/srv/acme"), Path("/srv/böse")), preload=False),
        workers=WorkerSettings(count=3, kill_grace=0.25),
        handlers=handlers,
        signature=SignatureSettings(keys=("ab" * 32,)),
        log=LogSettings(level="debug"),
        queues=("", "email:new"),
    )


def test_a_plan_with_every_part_comes_back_as_it_was() -> None:
    spec = _spec(
        NatsSettings(
            servers=("nats://a:1", "nats://b:2"),
            creds=Path("/c"),
            password="geheim",
            tls=TlsSettings(ca=Path("/ca"), first=True),
        ),
        (
            HandlerSettings("email:new", "acme.mail:send", 30.0, 4, True, 3),
            HandlerSettings("", "acme.audit:anything"),
        ),
    )
    assert from_object(GenerationSpec, orjson.loads(orjson.dumps(spec, default=str))) == spec


def test_a_plan_without_optional_parts_comes_back_as_it_was() -> None:
    spec = _spec(NatsSettings(), ())
    assert from_object(GenerationSpec, orjson.loads(orjson.dumps(spec, default=str))) == spec


def test_a_plan_of_many_handlers_comes_back_as_it_was() -> None:
    spec = _spec(NatsSettings(), tuple(HandlerSettings(f"r{i}", f"m{i}:f") for i in range(5000)))
    assert from_object(GenerationSpec, orjson.loads(orjson.dumps(spec, default=str))) == spec


def test_a_whole_number_of_seconds_is_a_time_too() -> None:
    assert from_object(WorkerSettings, orjson.loads(b'{"kill_grace": 2}')).kill_grace == 2.0


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b'{"slot": "0", "serial": 1, "generation": 1}', "^slot: str where int is wanted"),
        (b'{"slot": 0, "serial": 1}', "generation"),
        (b'{"slot": 0, "serial": 1, "generation": 1, "extra": 1}', "extra"),
        (b"[]", "WorkerSpec"),
        (b'{"slot": null, "serial": 1, "generation": 1}', "^slot: NoneType"),
    ],
)
def test_what_is_no_worker_spec_is_refused_and_the_text_names_the_part(data: bytes, named: str) -> None:
    with pytest.raises(TypeError, match=named):
        from_object(WorkerSpec, orjson.loads(data))


def test_parts_nest_to_any_depth() -> None:
    outer = _Outer((_Inner(Path("a")), _Inner(None)))
    assert from_object(_Outer, orjson.loads(orjson.dumps(outer, default=str))) == outer


@dataclass(frozen=True, slots=True)
class _Inner:
    path: Path | None


@dataclass(frozen=True, slots=True)
class _Outer:
    inner: tuple[_Inner, ...]
