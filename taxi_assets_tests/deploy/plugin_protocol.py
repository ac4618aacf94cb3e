"""Terraform's plugin protocol, version 6, as far as `google_provider.py` speaks it.

Messages are protobuf, values in them msgpack; the few messages are not worth generated code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import grpc
import msgpack

UNKNOWN = msgpack.ExtType(0, b"\x00")
NESTING = {"single": 1, "list": 2, "set": 3, "map": 4}


class Handler(grpc.GenericRpcHandler):
    """Passes every call to one function of the method's name and the request's bytes."""

    def __init__(self, answer: Callable[[str, bytes], bytes]) -> None:
        self.answer = answer

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        service, method = handler_call_details.method.rsplit("/", 1)
        # Plugins' other services are streams, each of which would keep a thread for good.
        if service != "/tfplugin6.Provider":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda request, _: self.answer(method, request))


def _varint(number: int) -> bytes:
    encoded = b""
    while True:
        bits, number = number & 127, number >> 7
        encoded += bytes([bits | 128 if number else bits])
        if not number:
            return encoded


def field(number: int, value: bytes | str | int) -> bytes:
    """Encode a field of a message; zero and false are omitted."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(int(value)) if value else b""
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def fields(message: bytes) -> dict[int, Any]:
    """Return the fields of a message by number, each with its last value."""
    values: dict[int, Any] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        number = shift = 0
        while True:
            byte = message[position]
            position += 1
            number |= (byte & 127) << shift
            shift += 7
            if not byte & 128:
                return number

    while position < len(message):
        key = varint()
        if key & 7 == 0:
            values[key >> 3] = varint()
        elif key & 7 == 2:
            length = varint()
            values[key >> 3] = message[position : position + length]
            position += length
        else:
            raise ValueError(f"Wire type {key & 7} in a message of Terraform's")
    return values


def loads(value: bytes) -> Any:
    """Decode a DynamicValue."""
    return msgpack.unpackb(fields(value).get(1, b"\xc0"), raw=False, strict_map_key=False)


def dumps(value: Any) -> bytes:
    """Encode a DynamicValue."""
    return field(1, msgpack.packb(value))


def is_unknown(value: Any) -> bool:
    """Return whether a value is only known after apply."""
    return isinstance(value, msgpack.ExtType)


def error(number: int, summary: str) -> bytes:
    """Encode a diagnostic that fails the call."""
    return field(number, field(1, 1) + field(2, summary))


def encode_schemas(schema: dict[str, Any]) -> bytes:
    """Encode the answer to GetProviderSchema."""
    answer = field(1, _schema(schema.get("provider") or {"block": {}}))
    kinds = {2: "resource_schemas", 3: "data_source_schemas", 8: "ephemeral_resource_schemas"}
    for number, kind in kinds.items():
        for name, definition in schema.get(kind, {}).items():
            answer += field(number, field(1, name) + field(2, _schema(definition)))
    return answer


def _schema(schema: dict[str, Any]) -> bytes:
    return field(1, schema.get("version", 0)) + field(2, _block(schema["block"]))


def _block(block: dict[str, Any]) -> bytes:
    flags = {4: "required", 5: "optional", 6: "computed", 7: "sensitive", 11: "write_only"}
    encoded = b""
    for name, attribute in sorted(block.get("attributes", {}).items()):
        content = field(1, name) + field(2, json.dumps(attribute["type"]))
        for number, flag in flags.items():
            content += field(number, attribute.get(flag, False))
        encoded += field(2, content)
    for name, nested in sorted(block.get("block_types", {}).items()):
        content = field(1, name) + field(2, _block(nested["block"]))
        content += field(3, NESTING[nested["nesting_mode"]])
        content += field(4, nested.get("min_items", 0)) + field(5, nested.get("max_items", 0))
        encoded += field(3, content)
    return encoded
