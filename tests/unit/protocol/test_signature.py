"""Signatures, against tasks that asyncjobs v0.3.0 signed itself (seed: 32 bytes of 7)."""

import json

import pytest

from ajhost.protocol import signature, timestamps
from ajhost.protocol.task_record import TaskRecord, read_task

KEY = signature.read_key("ea4a6c63e29c520abef5507b132ec5f9954776aebebe7b92421eea691446d22c\n")
OTHER_KEY = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
ID = "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d"
PLAIN = {
    "id": ID,
    "type": "email:new",
    "queue": "EMAIL",
    "payload": "eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
    "max_tries": 10,
    "state": "active",
    "created": "2026-11-24T11:55:56.123456789Z",
    "tries": 1,
}
# What is different from PLAIN, the signed message, the signature.
VECTORS = {
    "plain": (
        {},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:10:1795521356123456789:0:eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
        "12f264b22c82265c2d84289b98ee0a22f2ccb1cbd5162439a87ebb9fced6df6890892152c30d4e3985304a49b5f75afbb6592a75e604dda82a72b6fb924f5c07",
    ),
    "deadline with an offset": (
        {"deadline": "2027-01-02T03:04:05.06+05:30"},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:10:1795521356123456789:1798839245060000000:eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
        "e72ec1f1576e943d0d24ffc5a1492ed630861ec63dd670c440f55cc8da4454497d221d19037c430657c695d0586bd066cc80337669e56ddf1d8df99421a81e08",
    ),
    "no payload": (
        {"payload": None},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:10:1795521356123456789:0:",
        "0086ef6e5c2f5edabf53d1f723c72181d9210a06d897aefda48f50370a5ce035bce47a7c3b0d26895cb46e3dd3d95ad11512040967cf4b4d9eb8038099c23c0e",
    ),
    "binary payload": (
        {"payload": "AP8KOg0="},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:10:1795521356123456789:0:AP8KOg0=",
        "76846ba2a29242739b237ce322ece77896281e99f717fecf7c9bfcaf0f702992e4829caeb67a02f150eea22b8504853a5fe12ccf6e90f00ad6f70930f8311f01",
    ),
    "zero times": (
        {"deadline": "0001-01-01T00:00:00Z", "created": "0001-01-01T00:00:00Z"},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:10:-6795364578871345152:-6795364578871345152:eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
        "dd48a97f3a69c2a27004a849cd6c2f2fa7e913d4be140aeaa333f8ee51366eb641a544fbeced4756e498a52a3d843d982a98c745e50dfca9a3380f3b86f0810d",
    ),
    "short fraction, negative tries": (
        {"max_tries": -1, "created": "2026-11-24T11:55:56.1Z", "tries": 3},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:EMAIL:email:new:-1:1795521356100000000:0:eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
        "9909f341b5a4d9b95461d646a7f723f92abd8b23005a3c234febd0752b9708cf34d15f4b6fcebec117a54d047e303baeea6b4cc5e76bb6afc04201425536d004",
    ),
    "whole second": (
        {"queue": "A_B-c", "created": "2026-11-24T11:55:56Z"},
        "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7d:A_B-c:email:new:10:1795521356000000000:0:eyJ0byI6InhAZXhhbXBsZS5uZXQifQ==",
        "57a7ac521263af2567ce1c5499f775fe52efa76f615dbb477fd94db9ea47a13dd4542f7cda64179617568f71263e3df77ac909b4cef77ed6e4077b99e10a0900",
    ),
}


def task(**fields: object) -> TaskRecord:
    return read_task(json.dumps(PLAIN | fields).encode())


@pytest.mark.parametrize(("fields", "message", "signed"), VECTORS.values(), ids=VECTORS)
def test_what_go_signed_is_verified(fields: dict[str, object], message: str, signed: str) -> None:
    record = task(**fields, signature=signed)
    assert signature.message(record) == message.encode()
    assert signature.verify(record, [KEY]) is None


@pytest.mark.parametrize(("fields", "message", "signed"), VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize(
    "change",
    [
        {"id": "2Zzz0aXK3z6bm9wQ2vJ8mX1fG7e"},
        {"type": "email:old"},
        {"queue": "SMS"},
        {"payload": "AAAA"},
        {"max_tries": 11},
        {"created": "2026-11-24T11:55:56.123456788Z"},
        {"deadline": "2027-01-02T03:04:05.060000001+05:30"},
    ],
    ids=str,
)
def test_a_change_of_any_signed_field_is_found(
    fields: dict[str, object], message: str, signed: str, change: dict[str, object]
) -> None:
    assert signature.verify(task(**(fields | change), signature=signed), [KEY]) == (
        "the task's signature is of none of the configured keys"
    )


def test_fields_that_a_router_changes_are_not_signed() -> None:
    _, _, signed = VECTORS["plain"]
    record = task(tries=7, state="retry", last_err="x", tried="2027-01-01T00:00:00Z", signature=signed)
    assert signature.verify(record, [KEY]) is None


def test_any_of_several_keys_may_have_signed() -> None:
    record = task(signature=VECTORS["plain"][2])
    assert signature.verify(record, [OTHER_KEY, KEY]) is None
    assert signature.verify(record, [OTHER_KEY]) is not None
    assert signature.verify(record, []) is not None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "the task is not signed"),
        ({"signature": "zz"}, "cannot be checked"),
        ({"signature": "\ufffd"}, "cannot be checked"),
        ({"signature": "00"}, "has 1 bytes, not 64"),
        ({"signature": "00" * 64}, "none of the configured keys"),
        ({"signature": "00" * 64, "queue": ""}, "without a queue"),
        ({"signature": "00" * 64, "created": "yesterday"}, "created: 'yesterday'"),
        ({"signature": "00" * 64, "deadline": "tomorrow"}, "deadline: 'tomorrow'"),
    ],
)
def test_a_task_that_is_not_trusted_has_a_reason(fields: dict[str, object], reason: str) -> None:
    found = signature.verify(task(**fields), [KEY])
    assert found is not None
    assert reason in found


@pytest.mark.parametrize(
    "fields",
    [
        {"queue": "EMAIL:email", "type": "new"},
        {"id": f"{ID}:EMAIL", "queue": "email", "type": "new"},
    ],
    ids=str,
)
def test_a_signature_is_not_good_for_the_same_bytes_cut_up_differently(fields: dict[str, object]) -> None:
    _, message, signed = VECTORS["plain"]
    record = task(**fields, signature=signed)
    assert f"{record.id}:{record.queue}:{record.type}" in message
    found = signature.verify(record, [KEY])
    assert found is not None
    assert "':'" in found


_WRAP = 1 << 64
"""Nanoseconds after which Go's `UnixNano` gives the same number again: 584 years."""


@pytest.mark.parametrize("field", ["created", "deadline"])
@pytest.mark.parametrize("turns", [1, -1, 2, 13])
def test_a_signature_is_not_good_for_a_time_that_go_signs_as_the_same_number(field: str, turns: int) -> None:
    _, _, signed = VECTORS["deadline with an offset"]
    with_deadline = {"deadline": "2027-01-02T03:04:05.06+05:30"}
    record = task(**with_deadline)
    signed_ns = {"created": record.created_ns, "deadline": record.deadline_ns}[field]
    assert signed_ns is not None
    fields: dict[str, object] = {**with_deadline, field: timestamps.render(signed_ns + turns * _WRAP)}
    found = signature.verify(task(**fields, signature=signed), [KEY])
    assert found is not None
    assert "no router's" in found


_OF_LOW_ORDER = (
    "00" * 32,
    f"01{'00' * 31}",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    f"ec{'ff' * 30}7f",
)
_A_SEED = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"


@pytest.mark.parametrize("text", ["", "00", "zz" * 32, "00" * 33, *_OF_LOW_ORDER, _A_SEED])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a verification key must"):
        signature.read_key(text)


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), f" {KEY.hex()}\r\n"])
def test_a_key_may_have_white_space_around_it(text: str) -> None:
    assert signature.read_key(text) == KEY
