"""The messages of the channels: each comes back as it was, and what is none is told by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import orjson
import pytest

from ajhost.adapters.nats.tls import Trust
from ajhost.protocol.dataclass_json import from_object
from ajhost.roles import messages
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.messages import (
    FOR_TEMPLATE,
    FOR_WORKER,
    FROM_TEMPLATE,
    FROM_WORKER,
    AccessOrder,
    BadMessage,
    CancelOrder,
    CancelResult,
    FinishOrder,
    ForkOrder,
    ForkRefused,
    GenerationSpec,
    GroupLeft,
    HandlersLoaded,
    HurryOrder,
    LeaveOrder,
    LoadOrder,
    LoadProblems,
    MembershipOrder,
    Message,
    NewQueues,
    NewSocket,
    RecycleRequest,
    SocketStored,
    StacksFile,
    StacksOrder,
    StacksResult,
    StartFailed,
    Vocabulary,
    WorkerForked,
    WorkerReady,
    WorkerSpec,
    encode,
)
from ajhost.roles.template.import_effects import ImportEffect
from ajhost.settings.sections import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    TlsSettings,
    WorkerSettings,
)
from scripts.lib.doc_tables import PACKAGE

EXAMPLES: dict[str, list[Message]] = {
    "FOR_WORKER": [
        LeaveOrder(True),
        LeaveOrder(False),
        MembershipOrder(True),
        MembershipOrder(False),
        FinishOrder(),
        HurryOrder(),
        SocketStored(1 << 40),
        CancelOrder("T", True, "cancelled: n\u00f6"),
        AccessOrder(NatsSettings(password="p", tls=TlsSettings(ca=Path("/ca"))), True),
        StacksOrder("T"),
    ],
    "FROM_WORKER": [
        NewSocket(3),
        StacksFile(),
        WorkerReady(),
        StartFailed("no database"),
        RecycleRequest("7 tasks sérved"),
        GroupLeft(),
        CancelResult("T", "running"),
        StacksResult("T", "task T\n  awaits:"),
    ],
    "FOR_TEMPLATE": [
        LoadOrder(GenerationSpec(0, Path("/"), NatsSettings(), PythonSettings(), WorkerSettings(), ())),
        NewQueues(("", "mail")),
        NewQueues(()),
        ForkOrder(WorkerSpec(slot=1, serial=2, generation=3, supervisor=4)),
    ],
    "FROM_TEMPLATE": [
        HandlersLoaded((), (), Trust("the authorities of /p: /ca (3)", "ab")),
        HandlersLoaded((HandlerDescription("r", "m:f", "async"),), (ImportEffect("thread", "x", "a thread"),)),
        LoadProblems(("one\ntwo", "three")),
        WorkerForked(serial=1, pid=2),
        ForkRefused(serial=1, problem="cannot fork"),
    ],
}


def sent() -> Iterator[tuple[Vocabulary[Message], Message]]:
    for name, found in EXAMPLES.items():
        for message in found:
            yield getattr(messages, name), message


@pytest.mark.parametrize(("vocabulary", "message"), list(sent()), ids=lambda value: type(value).__name__)
def test_a_message_comes_back_as_it_was(vocabulary: Vocabulary[Message], message: Message) -> None:
    assert vocabulary.decode(orjson.loads(orjson.dumps(encode(message)))) == message


def test_every_message_is_among_the_examples() -> None:
    assert {type(message) for _, message in sent()} == set(get_args(Message))


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            {},
            r"a message \[\], where one of LeaveOrder, MembershipOrder, .*, StacksOrder is understood",
        ),
        ({"WorkerReady": {}}, r"a message \['WorkerReady'\], where one of LeaveOrder, .* is understood"),
        ({"LeaveOrder": {"stop": True}, "HurryOrder": {}}, r"a message \['HurryOrder', 'LeaveOrder'\]"),
        ({"LeaveOrder": True}, "a LeaveOrder that cannot be read: bool where LeaveOrder is wanted"),
        ({"LeaveOrder": {"stop": 1}}, "a LeaveOrder that cannot be read: stop: int where bool is wanted"),
        ({"LeaveOrder": {}}, "a LeaveOrder that cannot be read: .*'stop'"),
        ({"SocketStored": {"epoch": 1, "more": 2}}, "cannot be read: SocketStored has no more"),
    ],
)
def test_what_is_no_message_is_told_by_what_is_wrong(found: dict[str, object], told: str) -> None:
    with pytest.raises(BadMessage, match=told):
        FOR_WORKER.decode(found)


def test_the_text_about_a_bad_message_does_not_have_what_it_held() -> None:
    with pytest.raises(BadMessage) as caught:
        FOR_TEMPLATE.decode({"LoadOrder": {"spec": {"nats": {"token": ["sesame"]}}}})
    assert "sesame" not in str(caught.value)
    assert "token" in str(caught.value) or "nats" in str(caught.value)


def test_the_bootstrap_which_cannot_import_this_writes_problems_as_they_are_read() -> None:
    source = (PACKAGE / "roles" / "template" / "bootstrap.py").read_text()
    (written,) = (
        node.args[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "json.dumps"
    )
    found = eval(ast.unparse(written), {"problem": "too old"})
    assert FROM_TEMPLATE.decode(found) == LoadProblems(("too old",))


def test_ends_of_a_channel_understand_different_messages() -> None:
    assert FOR_WORKER.kinds.keys().isdisjoint(FROM_WORKER.kinds)
    assert FOR_TEMPLATE.kinds.keys().isdisjoint(FROM_TEMPLATE.kinds)


# -- the specs in them -----------------------------------------------------------------------------


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
