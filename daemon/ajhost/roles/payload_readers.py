"""Makes of a payload what a handler's parameter asks for: bytes, text, or JSON that pydantic validates. Words what does
not fit (`invalid payload: mail.to: field required (and 2 more)`), and takes JSON within a JSON text for what it holds.

bytes, bytes | None                           as it is
str, str | None, Annotated[str, Field(...)]   as UTF-8; pydantic checks it
anything else                                 JSON, validated
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import operator
import sys
import types
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ajhost.api import InvalidPayload
from ajhost.protocol import exact_json
from ajhost.protocol.unwrap import json_inside

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_log = logging.getLogger("ajhost.worker")
_OLDEST_PYDANTIC = 2
_DECODER = json.JSONDecoder()
_MOST_WRAPPINGS = 3
"""JSON texts within JSON texts: `ajc` makes one, the scheduler another of it."""
_PART_SHOWN, _PLACE_SHOWN, _MESSAGE_SHOWN = 60, 200, 300
"""Characters of an error's place and text."""


class Unbindable(Exception):
    """Nothing can make what a handler's parameters ask for. The text says why, and what would do."""


class PayloadReader(Protocol):
    """Makes the argument of a payload parameter."""

    type_name: str

    def read(self, payload: bytes) -> Any:
        """Returns the argument. :raises InvalidPayload: the payload does not fit."""

    def schema(self) -> dict[str, Any] | None:
        """Returns the JSON Schema of payloads that fit; None where they need not be JSON."""
        return None


def payload_reader(handler: str, name: str, hint: Any) -> PayloadReader:
    """Returns what makes the argument of the parameter `name`, annotated `hint`, of `handler`.

    :raises Unbindable: nothing can.
    """
    if hint is bytes:
        return _Bytes()
    if hint is str:
        return _Text(name)
    try:
        from pydantic import VERSION, TypeAdapter
    except ImportError as error:
        raise Unbindable(f"{handler}: a payload of type {type_name(hint)} needs pydantic: {error}") from None
    if int(VERSION.partition(".")[0]) < _OLDEST_PYDANTIC:
        raise Unbindable(f"{handler}: a payload of type {type_name(hint)} needs pydantic 2; this is {VERSION}")
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(_newer_typed_dicts(hint) if sys.version_info < (3, 12) else hint)
        if hasattr(adapter, "rebuild"):  # pydantic 2.10
            adapter.rebuild(raise_errors=True)
    except Exception as error:
        reason = str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
        raise Unbindable(
            f"{handler}: {name} cannot be validated as {type_name(hint)}: {reason}. What would do: bytes, str, "
            f"dict, list, a dataclass, a TypedDict, a pydantic model, or Annotated[{type_name(hint)}, "
            "PlainValidator(f)] of pydantic, where f makes it of what is in the JSON"
        ) from None
    raw, is_optional = _raw_type(hint)
    if raw is not None:
        reader = _Bytes() if raw is bytes else _Text(name)
        return _Checked(name, type_name(hint), adapter, reader, is_optional)
    return _Json(name, type_name(hint), adapter, handler)


def _raw_type(hint: Any) -> tuple[type | None, bool]:
    """Returns `bytes` or `str`, if the type is that with constraints or by another name; and whether None fits too."""
    is_optional = False
    while hint is not bytes and hint is not str:
        origin, arguments = typing.get_origin(hint), typing.get_args(hint)
        if origin is typing.Annotated:
            hint = arguments[0]
        elif origin in (typing.Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
            is_optional = True
            (hint,) = (part for part in arguments if part is not type(None))
        elif isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # `type Name = str`, Python 3.12
            hint = hint.__value__
        else:
            return None, False
    return hint, is_optional


def type_name(hint: Any) -> str:
    """Returns an annotation as it is written in code: `list[Mail] | None`."""
    if hint is Any:
        return "any JSON"
    if hint in (None, type(None), ...):
        return "..." if hint is ... else "None"
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return f"Literal{list(arguments)}"
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    name = getattr(origin or hint, "__name__", None) or str(hint)
    return f"{name}[{', '.join(type_name(argument) for argument in arguments)}]" if arguments else name


# -- payloads --------------------------------------------------------------------------------------


def _newer_typed_dicts(hint: Any) -> Any:
    """Returns `hint` with each TypedDict as one of typing_extensions: pydantic takes no other before Python 3.12."""
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
    if origin is None or origin is typing.Literal:
        return hint
    if origin is typing.Annotated:
        return typing.Annotated[(_newer_typed_dicts(arguments[0]), *hint.__metadata__)]
    newer_arguments = tuple(_newer_typed_dicts(part) for part in arguments)
    if newer_arguments == arguments:
        return hint
    if origin in (typing.Union, types.UnionType):
        return functools.reduce(operator.or_, newer_arguments)
    return origin[newer_arguments]


class _Bytes(PayloadReader):
    type_name = "bytes"

    def read(self, payload: bytes) -> bytes:
        return payload


class _Text(PayloadReader):
    type_name = "str"

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self, payload: bytes) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError as error:
            raise InvalidPayload(f"{self._name}: not UTF-8 at byte {error.start}") from None


class _Validated(PayloadReader):
    """A reader whose arguments pydantic validates."""

    def __init__(self, name: str, type_name: str, adapter: TypeAdapter[Any]) -> None:
        from pydantic import ValidationError

        self.type_name = type_name
        self._name = name
        self._adapter = adapter
        self._Invalid = ValidationError

    def _invalid(self, error: Any, payload: bytes) -> InvalidPayload:
        # a payload may have as many errors as items: pydantic writes JSON of them ten times as fast as it makes objects
        found = error.json(include_url=False, include_context=False, include_input=False)
        first, _ = _DECODER.raw_decode(found, 1)
        more = error.error_count() - 1
        place = _shortened(self._name + _place(first["loc"], first["type"] == "missing", payload), _PLACE_SHOWN)
        message = _shortened(first["msg"].rstrip(", "), _MESSAGE_SHOWN)
        if message[1:2].islower():
            message = message[:1].lower() + message[1:]
        return InvalidPayload(f"{place}: {message} (and {more} more)" if more else f"{place}: {message}")


class _Checked(_Validated):
    """Bytes or a text with constraints, or that need not be there."""

    def __init__(
        self, name: str, type_name: str, adapter: TypeAdapter[Any], raw: _Bytes | _Text, is_optional: bool
    ) -> None:
        super().__init__(name, type_name, adapter)
        self._raw, self._is_optional = raw, is_optional

    def read(self, payload: bytes) -> Any:
        if not payload and self._is_optional:
            return None
        try:
            return self._adapter.validate_python(self._raw.read(payload))
        except self._Invalid as error:
            raise self._invalid(error, b"") from None


class _Json(_Validated):
    """JSON, validated by pydantic."""

    def __init__(self, name: str, type_name: str, adapter: TypeAdapter[Any], handler: str) -> None:
        super().__init__(name, type_name, adapter)
        self._handler = handler
        has_decimals = _mentions(adapter.core_schema, "decimal")
        self._validate = self._with_decimals if has_decimals else adapter.validator.validate_json
        self._told = False

    def schema(self) -> dict[str, Any]:
        return self._adapter.json_schema()

    def read(self, payload: bytes) -> Any:
        if not payload:
            return self._absent()
        try:
            # pydantic alone would take NaN, Infinity, and 1e999 for infinity
            exact_json.check(payload)
            return self._validate(payload)
        except self._Invalid as error:
            problem = error
        except ValueError as error:
            raise InvalidPayload(f"{self._name}: not JSON: {error}") from None
        return self._unwrapped(payload, problem)

    def _absent(self) -> Any:
        """Returns what the type makes of null, which is how a task without a payload is stored."""
        try:
            return self._validate(b"null")
        except Exception:  # a validator of the type's own may stumble over None
            raise InvalidPayload(f"{self._name}: there is none, {self.type_name} is wanted") from None

    def _with_decimals(self, text: bytes) -> Any:
        """Validates with Decimals made of the digits where a double, of which pydantic makes them, has lost some."""
        if (value := exact_json.loads_digits(text)) is not None:
            with contextlib.suppress(self._Invalid):  # the error is reported in terms of JSON below
                return self._adapter.validator.validate_python(value)
        return self._adapter.validator.validate_json(text)

    def _unwrapped(self, payload: bytes, problem: Any) -> Any:
        """Returns the value of a JSON text that holds JSON: `ajc tasks add` and the scheduler put their input in one.

        :raises InvalidPayload: for `problem`, if it is no such text or what it holds does not fit either.
        """
        ways: list[str] = []
        while len(ways) < _MOST_WRAPPINGS and (found := json_inside(payload)) is not None:
            payload, way = found
            ways.append(way)
            try:
                value = self._validate(payload)
            except self._Invalid as error:
                problem = error
                continue
            if not self._told:
                self._told = True
                _log.warning(
                    "%s: a payload came as %s, as `ajc tasks add` and the scheduler send it; "
                    "it is taken for what it holds, here and from now on",
                    self._handler,
                    " in ".join(("JSON", *reversed(ways))) if len(ways) > 1 else f"{way} in a JSON text",
                )
            return value
        raise self._invalid(problem, payload) from None


def _mentions(schema: object, kind: str) -> bool:
    """Whether a schema of pydantic-core has a part of this type."""
    if isinstance(schema, dict):
        return schema.get("type") == kind or any(_mentions(part, kind) for part in schema.values())
    return isinstance(schema, (list, tuple)) and any(_mentions(part, kind) for part in schema)


def _place(parts: Sequence[int | str], is_missing: bool, payload: bytes) -> str:
    """Returns where an error is, `.to[0].name`: pydantic's place without the names that it gives to union members.

    `is_missing`: the last part is not there, and is what the error is about.
    """
    value: Any = None
    with contextlib.suppress(ValueError):
        value = exact_json.loads(payload)
    place = ""
    for number, part in enumerate(parts):
        is_there = (isinstance(value, dict) and part in value) or (
            isinstance(value, list) and isinstance(part, int) and -1 < part < len(value)
        )
        if is_there:
            value = value[part]
        if is_there or part == "[key]" or (is_missing and number == len(parts) - 1):
            shown = _shortened(str(part), _PART_SHOWN)
            place += shown if part == "[key]" else f"[{shown}]" if isinstance(part, int) else f".{shown}"
    return place


def _shortened(text: str, limit: int) -> str:
    """Cuts a text to `limit` characters, since payloads have secrets."""
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
