"""How a payload becomes what a handler's parameter asks for: bytes, text, or JSON that pydantic validates."""

from __future__ import annotations

import functools
import json
import logging
import operator
import sys
import types
import typing
from binascii import a2b_base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ajhost.api import InvalidPayload
from ajhost.protocol import exact_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_log = logging.getLogger("ajhost.worker")
_OLDEST_PYDANTIC = 2
_DECODER = json.JSONDecoder()


class Unreadable(Exception):
    """Nothing can make this type of a payload. The text says why, and what would do."""


class PayloadReader(Protocol):
    """Makes the argument of a payload parameter."""

    type_name: str

    def read(self, payload: bytes) -> Any:
        """The argument. :raises InvalidPayload: it does not fit."""

    def schema(self) -> dict[str, Any] | None:
        """The JSON Schema of payloads that fit; None where they need not be JSON."""


def payload_reader(handler: str, name: str, hint: Any) -> PayloadReader:
    """Makes the argument of the parameter `name`, annotated `hint`, of `handler`.

    :raises Unreadable: nothing can.
    """
    if hint is bytes:
        return _Bytes()
    if hint is str:
        return _Text(name)
    try:
        from pydantic import VERSION, TypeAdapter
    except ImportError as error:
        raise Unreadable(f"{handler}: a payload of type {type_name(hint)} needs pydantic: {error}") from None
    if int(VERSION.partition(".")[0]) < _OLDEST_PYDANTIC:
        raise Unreadable(
            f"{handler}: a payload of type {type_name(hint)} needs pydantic 2; this is {VERSION}"
        )
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(
            _newer_typed_dicts(hint) if sys.version_info < (3, 12) else hint
        )
        if hasattr(adapter, "rebuild"):  # pydantic 2.10
            adapter.rebuild(raise_errors=True)
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise Unreadable(
            f"{handler}: {name} cannot be validated as {type_name(hint)}: {reason}. What would do: bytes, str, "
            "dict, list, a dataclass, a TypedDict, a pydantic model"
        ) from None
    return _Json(name, type_name(hint), adapter, handler)


def type_name(hint: Any) -> str:
    """An annotation as one would write it."""
    if hint is Any:
        return "any JSON"
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


# -- payloads --------------------------------------------------------------------------------------


def _newer_typed_dicts(hint: Any) -> Any:
    """`hint` with each TypedDict as one of typing_extensions: pydantic takes no other before Python 3.12."""
    if typing.is_typeddict(hint) and type(hint).__module__ == "typing":
        import typing_extensions

        fields = {}
        for name, kind in typing.get_type_hints(hint, include_extras=True).items():
            if kind is not hint and typing.get_origin(kind) not in (typing.Required, typing.NotRequired):
                is_required = name in hint.__required_keys__
                newer = _newer_typed_dicts(kind)
                kind = typing.Required[newer] if is_required else typing.NotRequired[newer]
            fields[name] = kind
        make: Any = typing_extensions.TypedDict
        return make(hint.__name__, fields)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is None or origin in (typing.Literal, typing.Annotated):
        return hint
    newer_arguments = tuple(_newer_typed_dicts(part) for part in arguments)
    if newer_arguments == arguments:
        return hint
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, newer_arguments)
    return origin[newer_arguments]


class _Bytes:
    type_name = "bytes"

    def read(self, payload: bytes) -> bytes:
        return payload

    def schema(self) -> None:
        return None


class _Text:
    type_name = "str"

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, payload: bytes) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise InvalidPayload(f"{self._name}: not UTF-8 at byte {error.start}") from None

    def schema(self) -> None:
        return None


class _Json:
    """JSON, validated by pydantic."""

    def __init__(self, name: str, type_name: str, adapter: TypeAdapter[Any], handler: str) -> None:
        from pydantic import ValidationError

        self.type_name = type_name
        self._name = name
        self._adapter = adapter
        self._handler = handler
        self._validate = adapter.validator.validate_json
        self._Invalid = ValidationError
        self._told = False

    def schema(self) -> dict[str, Any]:
        return self._adapter.json_schema()

    def read(self, payload: bytes) -> Any:
        if not payload:
            raise InvalidPayload(f"{self._name}: there is none, {self.type_name} is wanted")
        try:
            # pydantic alone would take NaN, Infinity, and 1e999 for infinity
            exact_json.check(payload)
            return self._validate(payload)
        except self._Invalid as error:
            problem = error
        except ValueError as error:
            raise InvalidPayload(f"{self._name}: not JSON: {error}") from None
        if payload.lstrip()[:1] == b'"':
            return self._unwrapped(payload, problem)
        raise self._invalid(problem) from None

    def _unwrapped(self, payload: bytes, problem: Any) -> Any:
        """The payload is a JSON text: `ajc tasks add` and the scheduler put the JSON that they are given in one."""
        text: str = exact_json.loads(payload)
        for inner, how in (
            (_encoded(text), "JSON in a JSON text"),
            (_decoded(text), "base64 in a JSON text"),
        ):
            if inner is None or not exact_json.is_json(inner):
                continue
            try:
                value = self._validate(inner)
            except self._Invalid as error:
                raise self._invalid(error) from None
            if not self._told:
                self._told = True
                _log.warning(
                    "%s: a payload came as %s, as `ajc tasks add` and the scheduler send it; "
                    "it is taken for what it holds, here and from now on",
                    self._handler,
                    how,
                )
            return value
        raise self._invalid(problem) from None

    def _invalid(self, error: Any) -> InvalidPayload:
        # a payload may have as many errors as items: pydantic writes JSON of them ten times as fast as it makes objects
        found = error.json(include_url=False, include_context=False, include_input=False)
        first, _ = _DECODER.raw_decode(found, 1)
        more = error.error_count() - 1
        message = first["msg"]
        text = f"{_place(self._name, first['loc'])}: {message[:1].lower()}{message[1:]}"
        return InvalidPayload(f"{text} (and {more} more)" if more else text)


def _encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def _decoded(text: str) -> bytes | None:
    try:
        return a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def _place(name: str, parts: Sequence[int | str]) -> str:
    return name + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
