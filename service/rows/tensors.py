"""The Open Inference Protocol's wire form: request bytes -> rows, tensors -> bytes. Pure functions,
as decoding.py and encoding.py have them for /v1.

A request is a JSON object; where the header Inference-Header-Content-Length tells its length, raw
little-endian tensors may follow it (Triton's binary tensor data extension). The one input is
`features` [N, D]: NaN is missing, in JSON null is too, a category is its code. Shapes: N rows, D
features.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from hourglass.service.errors import InvalidBody, InvalidJSON, InvalidRow, TooManyRows
from hourglass.service.model.artifact import INPUT, OUTPUTS, P_VALUE, SCORE
from hourglass.service.model.schema import Schema
from hourglass.service.model.served import Served
from hourglass.service.rows import decoding, encoding
from hourglass.service.rows.cells import (
    A_NUMBER,
    OVERFLOW,
    NoNumber,
    bad_number,
    misfit,
    parse_float,
    require_cells,
    shown,
)
from hourglass.service.rows.slicing import MARK, Sliced, slice_array, slices

Float32 = NDArray[np.float32]

DATATYPE = "FP32"  # of every output
DATATYPES = {
    "FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "BOOL": "|u1",
    "INT8": "|i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "|u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
}  # fmt: skip
DEFAULT_OUTPUTS = (SCORE, P_VALUE)

# parameters of extensions that would change what is asked
_FOREIGN = (
    "shared_memory_region",
    "classification",
)
_DIGITS = 400  # a whole number of more is beyond any float


class Output(NamedTuple):
    """One output asked for."""

    name: str
    binary: bool


class Inference(NamedTuple):
    """A request, read."""

    id: str | None
    rows_ND: Float32
    outputs: tuple[Output, ...]


def decode_request(
    body: decoding.Body, header_length: int | None, schema: Schema, *, max_rows: int
) -> Inference:
    """Body -> rows [N, D] and the outputs asked for; an error that names row and feature where one
    of them is wrong.
    """
    if not body:
        raise InvalidBody(
            f'the body is empty, expected a JSON object with "inputs": the tensor {INPUT!r}'
        )
    if header_length is not None and not 0 < header_length <= len(body):
        raise InvalidBody(
            f"expected an Inference-Header-Content-Length within the body's {len(body)} bytes, got"
            f" {header_length}"
        )
    # a view: of what follows the JSON there may be much
    tail = memoryview(body)[header_length:] if header_length is not None else memoryview(b"")
    sliced = slice_array(body if header_length is None else body[:header_length], 4)
    request = _parse(sliced.rest)
    outputs = _outputs(request)
    return Inference(request.id, _rows(request, sliced, tail, schema, max_rows), outputs)


def encode_answer(
    served: Served, asked: Inference, tensors: Mapping[str, Float32]
) -> tuple[bytes, int | None]:
    """The answer, and the length of its JSON where raw tensors follow; InvalidRow where a value is
    not finite.
    """
    fields: dict[str, Any] = {"model_name": served.name, "model_version": served.detector.version}
    if asked.id is not None:
        fields["id"] = asked.id
    threshold = served.threshold
    fields["parameters"] = {
        "alpha": threshold.alpha,
        "delta": threshold.delta,
        "certified": served.guarantee.kind == "certified",
        "guarantee": served.guarantee.kind,
        "threshold": threshold.score,
        # the protocol has no name for whose rows they are
        **({"known_entity": False} if served.detector.manifest.baseline else {}),
    }
    outputs: list[bytes] = []
    raw: list[bytes] = []
    for name, binary in asked.outputs:
        tensor = np.ascontiguousarray(tensors[name], dtype="<f4")
        encoding.require_finite(served, tensor, what=name)
        described: dict[str, Any] = {"name": name, "datatype": DATATYPE, "shape": tensor.shape}
        if binary:
            described["parameters"] = {"binary_data_size": tensor.nbytes}
            raw.append(tensor.tobytes())
        else:
            described["data"] = tensor.ravel()
        outputs.append(encoding.encode_object(described))
    head = encoding.encode_object({**fields, "outputs": outputs})
    return b"".join((head, *raw)), len(head) if raw else None


class _Input(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] | None = None


class _Request(msgspec.Struct):
    inputs: list[_Input]
    outputs: list[_Output] | None = None
    id: str | None = None
    parameters: dict[str, Any] | None = None


_request = msgspec.json.Decoder(_Request)


def _parse(head: decoding.Body) -> _Request:
    try:
        return _request.decode(head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        return _parse_leniently(head, error)


def _parse_leniently(head: decoding.Body, refused: Exception) -> _Request:
    """JSON with NaN, which is how tritonclient writes a missing value, and with what is no float,
    of which the cell is to be named.
    """
    try:
        sent = json.loads(
            head.decode(), parse_constant=_constant, parse_float=parse_float, parse_int=_int
        )
        request = msgspec.convert(sent, _Request)
        (request.id or "").encode()  # half a surrogate pair could not be sent back
        return request
    except msgspec.ValidationError as error:
        raise _no_request(error) from error
    except (ValueError, RecursionError):
        raise _no_request(refused, head) from refused


def _no_request(error: Exception, head: decoding.Body = b"") -> InvalidJSON:
    if isinstance(error, msgspec.ValidationError):
        expected = 'expected a JSON object with "inputs" as the Open Inference Protocol has it'
    else:
        expected = "the request is not JSON"
    return InvalidJSON(f"{expected}: {decoding.what_is_wrong(head, error)}")


def _constant(text: str) -> NoNumber | None:
    return None if text == "NaN" else NoNumber(text)


def _int(text: str) -> int | NoNumber:
    return int(text) if len(text) <= _DIGITS else NoNumber(text)


def _outputs(request: _Request) -> tuple[Output, ...]:
    binary_by_default = _flag(
        request.parameters, "binary_data_output", default=False, of="the request"
    )
    if not request.outputs:
        return tuple(Output(name, binary_by_default) for name in DEFAULT_OUTPUTS)
    names = [output.name for output in request.outputs]
    for place, name in enumerate(names):
        if name not in OUTPUTS:
            raise InvalidBody(f"expected outputs among {', '.join(OUTPUTS)}, got {name[:80]!r}")
        if name in names[:place]:
            raise InvalidBody(f"expected each output once, got {name!r} twice")
    for output in request.outputs:
        _refuse_foreign(output.parameters, output.name)
    return tuple(
        Output(
            output.name,
            _flag(output.parameters, "binary_data", default=binary_by_default, of=output.name),
        )
        for output in request.outputs
    )


def _flag(parameters: dict[str, Any] | None, name: str, *, default: bool, of: str) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise InvalidBody(
            f"expected true or false for the parameter {name!r} of {of}, got {shown(value)}"
        )
    return value


def _refuse_foreign(parameters: dict[str, Any] | None, tensor: str) -> None:
    for name in _FOREIGN:
        if name in (parameters or {}):
            raise InvalidBody(
                f"the parameter {name!r} of {tensor!r} belongs to an extension that is not offered"
                " here"
            )


def _rows(
    request: _Request, sliced: Sliced, tail: memoryview, schema: Schema, max_rows: int
) -> Float32:
    if [each.name for each in request.inputs] != [INPUT]:
        got = ", ".join(repr(each.name[:80]) for each in request.inputs[:10]) or "none"
        raise InvalidBody(f"expected the one input {INPUT!r}, got {got}")
    (sent,) = request.inputs
    _refuse_foreign(sent.parameters, INPUT)
    expected = f"[rows, {schema.width}]"
    if len(sent.shape) != 2 or sent.shape[1] != schema.width:
        got = _shown_shape(sent.shape)
        message = (
            f"expected the shape {expected} of {INPUT!r}, one column for each feature, got {got}"
        )
        raise InvalidRow(message, expected=expected, got=got, reason="width")
    count = sent.shape[0]
    if count < 1:
        raise InvalidBody(f"expected at least one row in {INPUT!r}, got {shown(count)}")
    if count > max_rows:
        raise TooManyRows(f"expected at most {max_rows} rows in one request, got {shown(count)}")
    if sent.datatype not in DATATYPES:
        raise InvalidBody(
            f"expected a datatype of {INPUT!r} among {', '.join(DATATYPES)}, got"
            f" {sent.datatype[:40]!r}"
        )
    size = (sent.parameters or {}).get("binary_data_size")
    if size is None:
        if tail:
            raise InvalidBody(
                f"expected nothing after the JSON without a binary_data_size, got {len(tail)} bytes"
            )
        rows_ND = _from_json(sent, sliced, schema)
    else:
        rows_ND = _to_float32(_from_bytes(sent, size, tail, schema), schema)
    # From here on it is the raw body of /v1: one place says what a row must be.
    decoding.require_raw(rows_ND, schema)
    return rows_ND


def _from_bytes(sent: _Input, size: object, tail: memoryview, schema: Schema) -> NDArray[Any]:
    datatype = np.dtype(DATATYPES[sent.datatype])
    expected = f"{sent.shape[0] * schema.width * datatype.itemsize} bytes"
    if sent.data is not None:
        raise InvalidBody(f"expected either data or a binary_data_size for {INPUT!r}, got both")
    if isinstance(size, bool) or not isinstance(size, int) or f"{size} bytes" != expected:
        of_what = f"{sent.datatype} of shape {_shown_shape(sent.shape)}"
        message = (
            f"expected a binary_data_size of {expected} for {INPUT!r}, {of_what}, got {shown(size)}"
        )
        raise InvalidRow(message, expected=expected, got=shown(size), reason="width")
    if len(tail) != size:
        message = f"expected {expected} of {INPUT!r} after the JSON, got {len(tail)}"
        raise InvalidRow(message, expected=expected, got=f"{len(tail)} bytes", reason="width")
    return np.frombuffer(tail, dtype=datatype).reshape(-1, schema.width)


def _from_json(sent: _Input, sliced: Sliced, schema: Schema) -> Float32:
    """Data as one flat array, row after row, or as an array of rows; of a large one slice after
    slice.
    """
    if sent.data is None:
        raise InvalidBody(f"expected data for {INPUT!r}, or a binary_data_size in its parameters")
    count, width = sent.shape[0], schema.width
    flat = np.empty(count * width, dtype=np.float32)
    if sent.data == [MARK] and sliced.elements not in (count, count * width):
        raise _wrong_count(sent, count * width, sliced.elements)
    first = at = 0
    nested: bool | None = None
    for group in [sent.data] if sent.data != [MARK] else _groups(sliced, width):
        cells: list[Any] = group
        if nested is None:
            nested = bool(cells) and isinstance(cells[0], list)
        if nested:
            for row, each in enumerate(cells, first):
                if not isinstance(each, list) or len(each) != width:
                    got = str(len(each)) if isinstance(each, list) else shown(each)
                    message = f"expected {width} features, got {got} in row {row}"
                    raise InvalidRow(
                        message, row=row, expected=f"{width} features", got=got, reason="width"
                    )
            first += len(cells)
            cells = [cell for each in cells for cell in each]
        if at + len(cells) <= len(flat):
            flat[at : at + len(cells)] = _floats(cells, at, sent.datatype, schema)
        at += len(cells)
    if at != len(flat):
        raise _wrong_count(sent, count * width, at)
    return flat.reshape(count, width)


def _wrong_count(sent: _Input, values: int, got: int) -> InvalidRow:
    expected = f"{values} values"
    shape = _shown_shape(sent.shape)
    message = f"expected {expected} for the shape {shape} of {INPUT!r}, got {got}"
    return InvalidRow(message, expected=expected, got=str(got), reason="width")


def _groups(sliced: Sliced, width: int) -> Iterator[list[Any]]:
    """The data's elements, some at a time."""
    first = 0
    for start, text in slices(sliced):
        decoding.require_small(text, first, width, "features")
        cells = _parse_group(text, start)
        yield cells
        first += len(cells)


def _parse_group(elements: memoryview, start: int) -> list[Any]:
    text = b"".join((b"[", elements, b"]"))
    try:
        cells: list[Any] = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as refused:
        try:
            cells = json.loads(
                text.decode(), parse_constant=_constant, parse_float=parse_float, parse_int=_int
            )
        except (ValueError, RecursionError):
            raise InvalidJSON(
                f"the request is not JSON, from byte {start - 1}: {str(refused)[:200]}"
            ) from refused
    if not cells:
        raise InvalidJSON(f"the request is not JSON: nothing follows a comma at byte {start - 1}")
    return cells


def _floats(cells: list[Any], at: int, datatype: str, schema: Schema) -> Float32:
    """Cells, the first of which has that place, as float32."""
    try:
        numbers: Sequence[float | None] = msgspec.convert(
            cells, list[bool | None] if datatype == "BOOL" else list[float | None]
        )
        values_C = np.array(numbers, dtype=np.float64)  # None becomes NaN
    except (
        msgspec.ValidationError,
        OverflowError,
        UnicodeEncodeError,
    ) as error:  # the last of half a character
        raise _wrong_cell(cells, at, datatype, schema) from error
    if (np.abs(values_C) >= OVERFLOW).any():
        raise _wrong_cell(cells, at, datatype, schema)
    dtype = np.dtype(DATATYPES[datatype])
    if dtype.kind in "iu" and datatype != "BOOL":
        limits = np.iinfo(dtype)
        wrong_C = (
            (values_C < limits.min) | (values_C > limits.max) | (values_C != np.floor(values_C))
        ) & ~np.isnan(values_C)
        if wrong_C.any():
            place = int(np.argmax(wrong_C))
            row, column = divmod(at + place, schema.width)
            expected = f"a whole number from {limits.min} to {limits.max}"
            name = schema.features[column].name
            raise misfit(row, name, expected, f"{values_C[place]:g}")
    return values_C.astype(np.float32)


def _wrong_cell(cells: list[Any], at: int, datatype: str, schema: Schema) -> InvalidRow:
    """What is wrong with the first cell that is."""
    expected = "true, false or null" if datatype == "BOOL" else "a number or null"
    for place, cell in enumerate(cells, at):
        row, column = divmod(place, schema.width)
        name = schema.features[column].name
        if isinstance(cell, NoNumber) or (_is_number(cell) and abs(cell) >= OVERFLOW):
            return bad_number(
                row, name, cell.text[:60] if isinstance(cell, NoNumber) else shown(cell)
            )
        if cell is not None and not (
            isinstance(cell, bool) if datatype == "BOOL" else _is_number(cell)
        ):
            return misfit(row, name, expected, shown(cell))
    raise AssertionError("every cell is a number or missing")


def _is_number(cell: object) -> bool:
    return isinstance(cell, int | float) and not isinstance(cell, bool)


def _to_float32(values_ND: NDArray[Any], schema: Schema) -> Float32:
    if values_ND.dtype == np.float64:
        require_cells(values_ND, np.abs(values_ND) >= OVERFLOW, schema, A_NUMBER)
    return values_ND.astype("<f4", copy=False)


def _shown_shape(shape: Sequence[int]) -> str:
    return str(shape)[:80] if len(shape) <= 8 else f"{len(shape)} dimensions"
