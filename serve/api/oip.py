"""The Open Inference Protocol's tensors (v2 REST, and its binary extension as Triton's clients use it).

https://github.com/kserve/open-inference-protocol and, for bytes after the JSON,
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from pydantic import BaseModel, Field

from models.tasks.base import Task, Tensor
from serve.api.validation import parse_json, validate
from serve.errors import InvalidRequest

HEADER_LENGTH = "inference-header-content-length"
_NUMPY = {"FP32": np.dtype("<f4"), "INT32": np.dtype("<i4"), "BOOL": np.dtype("?")}


class TensorIn(BaseModel):
    name: str
    shape: list[int] = Field(min_length=1, max_length=8)
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class TensorOut(BaseModel):
    name: str
    parameters: dict[str, Any] | None = None


class InferRequest(BaseModel):
    id: str | None = None
    parameters: dict[str, Any] | None = None
    inputs: list[TensorIn] = Field(fail_fast=True, min_length=1, max_length=64)
    outputs: list[TensorOut] | None = Field(None, max_length=64)


class Parsed(NamedTuple):
    """An inference request as the task's own JSON, and the format of the response that the client wants."""

    request: dict[str, Any]
    id: str | None
    wanted: dict[str, bool]
    """output name -> whether to send it as bytes after the JSON"""


def parse_infer(task: type[Task], body: bytes, header_length: str | None) -> Parsed:
    """Parse an inference request. Raises NotJson, or InvalidRequest, which names the tensor and the fault."""
    head, tail = body, memoryview(b"")
    if header_length is not None:
        if not header_length.isdecimal() or len(header_length) > 18 or int(header_length) > len(body):
            raise InvalidRequest(f"{HEADER_LENGTH}: is {header_length[:20]!r}; the body has {len(body)} bytes")
        head, tail = body[: int(header_length)], memoryview(body)[int(header_length) :]
    request = validate(InferRequest, parse_json(head))
    columns: dict[str, Sequence[Any]] = {}
    declared = {tensor.name: tensor for tensor in task.inputs}
    for tensor in request.inputs:
        if tensor.name not in declared:
            raise InvalidRequest(f"inputs: there is no tensor {tensor.name!r}; there are: {', '.join(declared)}")
        if tensor.name in columns:
            raise InvalidRequest(f"inputs.{tensor.name}: the tensor is given twice")
        values, used = _values(tensor, declared[tensor.name], tail)
        tail = tail[used:]
        columns[tensor.name] = values
    if len(tail):
        raise InvalidRequest(f"body: {len(tail)} bytes more than its tensors declare")
    for name, expected in declared.items():
        if not expected.optional and name not in columns:
            raise InvalidRequest(f"inputs: the tensor {name!r} is missing")
    try:
        plain = task.request_from_tensors(columns)
    except ValueError as error:
        raise InvalidRequest(f"inputs: {error}") from None
    given = request.parameters or {}
    plain |= {name: given[name] for name in task.parameters if name in given}
    return Parsed(plain, request.id, _wanted(task, request))


def _wanted(task: type[Task], request: InferRequest) -> dict[str, bool]:
    names = [tensor.name for tensor in task.outputs]
    outputs = request.outputs or ()
    everything = _flag(request.parameters, "binary_data_output", False, "parameters")
    for output in outputs:
        if output.name not in names:
            raise InvalidRequest(f"outputs: there is no tensor {output.name!r}; there are: {', '.join(names)}")
    requested = {
        output.name: _flag(output.parameters, "binary_data", everything, f"outputs.{output.name}.parameters")
        for output in outputs
    }
    return requested or dict.fromkeys(names, everything)


def _flag(parameters: dict[str, Any] | None, name: str, default: bool, where: str) -> bool:
    """The boolean parameter. Raises InvalidRequest when it is something else: "false" would count as true."""
    value = (parameters or {}).get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidRequest(f"{where}.{name}: is {value!r:.50}; it must be true or false")
    return value


def _values(tensor: TensorIn, expected: Tensor, tail: memoryview) -> tuple[Sequence[Any], int]:
    """The tensor's elements, flattened, and the number of bytes of `tail` that they occupy."""
    where = f"inputs.{tensor.name}"
    if tensor.datatype != expected.datatype:
        raise InvalidRequest(f"{where}: the datatype is {tensor.datatype}, it must be {expected.datatype}")
    if any(side < 0 for side in tensor.shape):
        raise InvalidRequest(f"{where}: the shape {tensor.shape} has a negative side")
    count = math.prod(tensor.shape)
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(tail):
            raise InvalidRequest(f"{where}: binary_data_size is {size!r}; {len(tail)} bytes are left in the body")
        values, used = _from_bytes(where, tail[:size], expected), size
    else:
        if tensor.data is None:
            raise InvalidRequest(f"{where}: there is neither data nor binary_data_size")
        values, used = _flat(tensor.data), 0
        wanted_type = str if expected.datatype == "BYTES" else (int, float)
        for i, value in enumerate(values):
            if not isinstance(value, wanted_type) or (isinstance(value, bool) and expected.datatype != "BOOL"):
                raise InvalidRequest(f"{where}: element {i} is not {expected.datatype}")
    if len(values) != count:
        raise InvalidRequest(f"{where}: the shape {tensor.shape} means {count} elements, the data has {len(values)}")
    if count == 0 and not expected.optional:
        raise InvalidRequest(f"{where}: the tensor is empty")
    return values, used


def _flat(data: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    stack = [iter(data)]
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            flat.append(value)
        else:
            stack.pop()
    return flat


def _from_bytes(where: str, raw: memoryview, expected: Tensor) -> Sequence[Any]:
    if expected.datatype != "BYTES":
        dtype = _NUMPY[expected.datatype]
        if len(raw) % dtype.itemsize:
            raise InvalidRequest(f"{where}: {len(raw)} bytes are not a whole number of {expected.datatype}")
        numbers: list[Any] = np.frombuffer(raw, dtype).tolist()
        return numbers
    values: list[str] = []
    at = 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or end > len(raw):
            raise InvalidRequest(f"{where}: element {len(values)} runs past the end of the tensor")
        try:
            values.append(str(raw[at + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise InvalidRequest(f"{where}: element {len(values)} is not UTF-8") from None
        at = end
    return values


def write_infer(
    task: type[Task], answer: Mapping[str, Any], wanted: Mapping[str, bool], request_id: str | None = None
) -> tuple[bytes, dict[str, str]]:
    """The body of an inference response and its headers. `answer` is the body of a predict response.

    `request_id`, when the client sent one, is returned as `id`, as the protocol demands. Feedback refers to the
    prediction's id, which is always in the parameters. If texts were cut, so are `truncated` (true) and
    `truncated_elements`, their numbers with commas in between, since the protocol has no lists in parameters.
    """
    parameters: dict[str, Any] = {"prediction_id": answer["id"]}
    if cut := [str(i) for i, prediction in enumerate(answer["predictions"]) if "truncated" in prediction]:
        parameters |= {"truncated": True, "truncated_elements": ",".join(cut)}
    columns = task.tensors_from_predictions(answer["predictions"])
    outputs, tails = [], []
    for tensor in task.outputs:
        if tensor.name in wanted:
            values = columns[tensor.name]
            output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": [len(values)]}
            if wanted[tensor.name]:
                raw = _to_bytes(values, tensor)
                output["parameters"] = {"binary_data_size": len(raw)}
                tails.append(raw)
            else:
                output["data"] = values
            outputs.append(output)
    head = orjson.dumps(
        {
            "model_name": answer["model_name"],
            "model_version": answer["model_version"],
            "id": request_id or answer["id"],
            "parameters": parameters,
            "outputs": outputs,
        }
    )
    if not tails:
        return head, {"content-type": "application/json"}
    return b"".join([head, *tails]), {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def _to_bytes(values: Sequence[Any], tensor: Tensor) -> bytes:
    if tensor.datatype != "BYTES":
        return np.asarray(values, _NUMPY[tensor.datatype]).tobytes()
    encoded = [str(value).encode() for value in values]
    return b"".join(len(value).to_bytes(4, "little") + value for value in encoded)
