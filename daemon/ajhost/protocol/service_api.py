"""The NATS service API (ADR-32): how a host's answers to `nats micro ls|info|stats|ping` are written, and those of
others read. `roles/supervisor/nats_service.py` collects the figures, and answers.

Source: nats-architecture-and-design, adr/ADR-32.md. One malformed reply makes `nats micro stats` fail for all services,
so names are made to fit, and every field has its type: durations are integers of nanoseconds, `last_error` is always a
text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import orjson

_ROOT = "$SRV"
_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9_-]")
_SEMANTIC_VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?\Z")
_CATCH_ALL = "catchall"


class Verb(Enum):
    PING = "PING"
    INFO = "INFO"
    STATS = "STATS"


@dataclass(frozen=True, slots=True)
class Service:
    """A host as a service. `id` is unique to one start; `started` is RFC 3339 text."""

    name: str
    id: str
    version: str
    description: str
    started: str
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """A route. Counts and `processing_ns` are those of the whole host, and outlast its workers."""

    route: str
    subject: str
    queue_group: str
    requests: int = 0
    errors: int = 0
    processing_ns: int = 0
    last_error: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


def subjects(service: Service) -> tuple[str, ...]:
    """Returns the subjects to subscribe to without a queue group, so that every host answers."""
    ends = ("", f".{service.name}", f".{service.name}.{service.id}")
    return tuple(f"{_ROOT}.{verb.value}{end}" for verb in Verb for end in ends)


def verb_of(subject: str) -> Verb | None:
    """Returns the question of a message on one of `subjects`; None for any other subject."""
    root, _, rest = subject.partition(".")
    try:
        return Verb(rest.partition(".")[0]) if root == _ROOT else None
    except ValueError:
        return None


def answer(verb: Verb, service: Service, endpoints: Iterable[ServiceEndpoint]) -> bytes:
    said: dict[str, object] = {
        "type": f"io.nats.micro.v1.{verb.value.lower()}_response",
        "name": service.name,
        "id": service.id,
        "version": version(service.version),
        "metadata": dict(service.metadata),
    }
    match verb:
        case Verb.INFO:
            said["description"] = service.description
            said["endpoints"] = [_info(e, n) for e, n in _named(endpoints)]
        case Verb.STATS:
            said["started"] = service.started
            said["endpoints"] = [_stats(e, n) for e, n in _named(endpoints)]
        case Verb.PING:
            pass
    return orjson.dumps(said)


@dataclass(frozen=True, slots=True)
class ServiceInfo:
    """A service's answer to `INFO`; `subscribed`: the subject and queue group of each endpoint."""

    name: str
    id: str
    metadata: dict[str, object]
    subscribed: tuple[tuple[str, str], ...]


def read_info(body: bytes) -> ServiceInfo | None:
    """Reads the answer of any service; None for a malformed one."""
    try:
        said = orjson.loads(body)
        endpoints, metadata = said.get("endpoints") or (), said.get("metadata") or {}
        subscribed = tuple((str(e["subject"]), str(e.get("queue_group") or "")) for e in endpoints)
        return ServiceInfo(str(said["name"]), str(said["id"]), dict(metadata), subscribed)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def covers(pattern: str, subject: str) -> bool:
    """Whether a subscription to `pattern`, wildcards included, gets messages to `subject`."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", t) for w, t in zip(wanted, tokens, strict=True))


def _named(endpoints: Iterable[ServiceEndpoint]) -> Iterable[tuple[ServiceEndpoint, str]]:
    """Yields each endpoint with a unique name: the routes `email:new` and `email-new` would have the same."""
    taken: set[str] = set()
    for endpoint in endpoints:
        name = plain = _NOT_IN_A_NAME.sub("-", endpoint.route) or _CATCH_ALL
        number = 2
        while name in taken:
            name, number = f"{plain}-{number}", number + 1
        taken.add(name)
        yield endpoint, name


def _place(endpoint: ServiceEndpoint, name: str) -> dict[str, object]:
    return {"name": name, "subject": endpoint.subject, "queue_group": endpoint.queue_group}


def _info(endpoint: ServiceEndpoint, name: str) -> dict[str, object]:
    return _place(endpoint, name) | {"metadata": {"route": endpoint.route, **dict(endpoint.metadata)}}


def _stats(endpoint: ServiceEndpoint, name: str) -> dict[str, object]:
    return _place(endpoint, name) | {
        "num_requests": endpoint.requests,
        "num_errors": endpoint.errors,
        "last_error": endpoint.last_error,
        "processing_time": endpoint.processing_ns,
        "average_processing_time": endpoint.processing_ns // endpoint.requests if endpoint.requests else 0,
    }


def version(text: str) -> str:
    """Returns a version in the form that clients require (semver.org): Python's `0.1.0.dev3` becomes `0.1.0-dev3`."""
    if _SEMANTIC_VERSION.match(text):
        return text
    found = re.match(r"(\d+)(?:\.(\d+))?(?:\.(\d+))?\.?(.*)\Z", text)
    if found is None:
        return "0.0.0"
    release = ".".join(part or "0" for part in found.groups()[:3])
    rest = re.sub(r"[^0-9A-Za-z.-]", "-", found[4]).strip("-.")
    return f"{release}-{rest}" if rest else release
