"""The messages of the channels: each comes back as it was, and what is none is told by name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import orjson
import pytest

from ajhost.adapters.nats.tls import Trust
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
    encode,
)
from ajhost.roles.process_specs import GenerationSpec, WorkerSpec
from ajhost.roles.template.import_effects import ImportEffect
from ajhost.settings.sections import NatsSettings, PythonSettings, TlsSettings, WorkerSettings
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
