"""The host as a NATS service, asked by whoever likes, as often as they like."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import orjson

from ajhost.adapters.linux.stats_files import DIRECTORY
from ajhost.core.timings import SERVICE_ANSWER_KEPT
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.supervisor.nats_service import ServiceResponder


def test_a_flood_of_questions_is_answered_from_a_few_answers(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).mkdir()
    made = 0

    def loaded() -> Sequence[HandlerDescription]:
        nonlocal made
        made += 1
        return ()

    responder = ServiceResponder(tmp_path, 1, lambda: True, loaded)
    responder.use_routes(["email:new"], "ajhost")
    began = time.monotonic()
    for _ in range(1000):
        assert responder.answer("$SRV.STATS")
    assert made <= 1 + (time.monotonic() - began) / SERVICE_ANSWER_KEPT
    responder.use_routes(["email:old"], "ajhost")
    answered = responder.answer("$SRV.STATS")
    assert answered is not None
    assert [endpoint["name"] for endpoint in orjson.loads(answered)["endpoints"]] == ["email-old"]
