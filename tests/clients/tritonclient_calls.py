"""Every call of tritonclient's HTTP clients that the protocol names.

Runs in the client's own environment: JSON in, JSON out.
"""

import asyncio
import inspect
import json
import sys
import urllib.request
from itertools import product

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

OUTPUTS = ("latent", "score", "contributions", "reconstruction", "severity", "p_value")
COMPRESSIONS = (None, "gzip", "deflate")


def features(rows_ND, *, binary):
    tensor = triton.InferInput("features", list(rows_ND.shape), np_to_triton_dtype(rows_ND.dtype))
    return [tensor.set_data_from_numpy(rows_ND, binary_data=binary)]


def read(result, names=("score", "p_value")):
    return {name: result.as_numpy(name).tolist() for name in names}


async def call(method, *arguments, **more):
    """The answer of a method of either client, or the error as the client shows it."""
    try:
        answer = method(*arguments, **more)
        return await answer if inspect.isawaitable(answer) else answer
    except InferenceServerException as error:
        return {"status": error.status(), "message": error.message()}


async def converse(client, name, version, rows_ND):
    said = {
        "is_server_live": await call(client.is_server_live),
        "is_server_ready": await call(client.is_server_ready),
        "is_model_ready": await call(client.is_model_ready, name),
        "is_model_ready of the version": await call(client.is_model_ready, name, version),
        "is_model_ready of another version": await call(client.is_model_ready, name, "1"),
        "is_model_ready of another model": await call(client.is_model_ready, "nobody"),
        "get_server_metadata": await call(client.get_server_metadata),
        "get_model_metadata": await call(client.get_model_metadata, name),
        "get_model_metadata of the version": await call(client.get_model_metadata, name, version),
        "get_model_metadata of another version": await call(client.get_model_metadata, name, "1"),
        "get_model_metadata of another model": await call(client.get_model_metadata, "nobody"),
        "infer another shape": await call(client.infer, name, features(rows_ND[:, :2], binary=True)),
        "infer too much once decompressed": await call(
            client.infer, name, features(np.zeros((3000, 4), np.float32), binary=True), request_compression_algorithm="gzip"
        ),
    }  # fmt: skip
    result = await call(
        client.infer,
        name,
        features(rows_ND, binary=True),
        model_version=version,
        request_id="first",
    )
    said["infer"], said["response"] = read(result), result.get_response()
    said["infer every way"] = []
    for binary_in, binary_out, packed_in, packed_out in product(
        (True, False), (True, False), COMPRESSIONS, COMPRESSIONS
    ):
        result = await call(
            client.infer, name, features(rows_ND, binary=binary_in),
            outputs=[triton.InferRequestedOutput(output, binary_data=binary_out) for output in OUTPUTS],
            request_compression_algorithm=packed_in, response_compression_algorithm=packed_out,
        )  # fmt: skip
        names = [output["name"] for output in result.get_response()["outputs"]]
        said["infer every way"].append({"names": names, "outputs": read(result, OUTPUTS)})
    said["infer datatypes"] = {}
    for datatype in (
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
        "bool",
    ):
        ones_ND = np.array([[1, 0, 1, 1], [0, 1, 1, 0]]).astype(datatype)
        said["infer datatypes"][datatype] = [
            read(await call(client.infer, name, features(ones_ND, binary=binary)))
            for binary in (True, False)
            if binary or datatype != "float16"
        ]
    return said


def only_synchronous(client, url, name, rows_ND):
    waiting = [
        client.async_infer(name, features(rows_ND[i : i + 2], binary=True)) for i in range(0, 6, 2)
    ]
    body, json_size = client.generate_request_body(features(rows_ND, binary=True))
    request = urllib.request.Request(
        f"http://{url}/v2/models/{name}/infer",
        data=body,
        headers={"Inference-Header-Content-Length": str(json_size)},
    )
    with urllib.request.urlopen(request) as answer:
        length = int(answer.headers["Inference-Header-Content-Length"])
        parsed = client.parse_response_body(answer.read(), header_length=length)
    return {"async_infer": [read(each.get_result()) for each in waiting], "by hand": read(parsed)}


async def main():
    asked = json.load(sys.stdin)
    rows_ND = np.array(asked["rows"], dtype=np.float32)  # None becomes NaN
    common = asked["name"], asked["version"], rows_ND
    with triton.InferenceServerClient(asked["url"]) as client:
        said = {
            "http": (
                await converse(client, *common)
                | only_synchronous(client, asked["url"], asked["name"], rows_ND)
            )
        }
    async with triton_aio.InferenceServerClient(asked["url"]) as client:
        said["http.aio"] = await converse(client, *common)
    json.dump(said, sys.stdout)


asyncio.run(main())
