"""Changes of bytes at random: what corruption does, and what attackers try."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"65536",
    b"2147483648",
    b"9223372036854775808",
    b"1" + b"0" * 30,
    b"1e9",
    b"9" * 5000,
    b"1" * 50_000,
    b"1.00000000000000001",
)
_WORDS = (
    b"\0",
    b"\r\n",
    b"\n",
    b"\xff\xfe",
    b"\xed\xa0\xbd",
    b"{",
    b"[",
    b'"',
    b"\\u0000",
    b" ",
    b"null",
    b"\x1b[2J",
    b"[" * 3000,
    b'{"a":' * 1000,
)
_NUMBER = re.compile(rb"\d+")
_LONGEST = 1 << 17


def mutated(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus with one to four changes."""
    data = rng.choice(corpus)
    for _ in range(rng.randint(1, 4)):
        data = _changed(rng, data, corpus)
    return data[:_LONGEST]


def overwritten(rng: random.Random, corpus: Sequence[bytes]) -> bytes:
    """One of the corpus with stray writes: most into the words at the front, a few that cut it off or fill it."""
    data = bytearray(rng.choice(corpus))
    match rng.randrange(20):
        case 0:
            return bytes(data[: rng.randrange(len(data)) & ~7])
        case 1:
            begin = rng.randrange(len(data))
            data[begin:] = bytes((rng.choice((0, 255)),)) * (len(data) - begin)
        case _:
            for _ in range(rng.choice((1, 2, 8, 64))):
                word = rng.randrange(len(data) // 8) * 8
                value = rng.choice((0, 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1, rng.getrandbits(64)))
                data[word : word + 8] = value.to_bytes(8, "little")
    return bytes(data)


def _changed(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    begin = rng.randrange(len(data) + 1)
    end = min(begin + rng.randint(1, 16), len(data))
    match rng.randrange(8):
        case 0 if begin < len(data):
            return data[:begin] + bytes((data[begin] ^ 1 << rng.randrange(8),)) + data[begin + 1 :]
        case 1:
            return data[:begin] + rng.randbytes(rng.randint(1, 8)) + data[begin:]
        case 2:
            return data[:begin] + data[end:]
        case 3:
            return data[:end] + data[begin:end] * rng.randint(1, 200) + data[end:]
        case 4:
            return data[:begin] + rng.choice(corpus)[begin:]
        case 5 if numbers := list(_NUMBER.finditer(data)):
            number = rng.choice(numbers)
            return data[: number.start()] + rng.choice(_NUMBERS) + data[number.end() :]
        case 6:
            return data[:begin]
        case _:
            return data[:begin] + rng.choice(_WORDS) + data[begin:]
