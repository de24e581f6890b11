"""Every call of kserve's InferenceRESTClient that the protocol names.

Runs in the client's own environment: JSON in, JSON out.
"""

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

OUTPUTS = ("latent", "score", "contributions", "reconstruction", "severity", "p_value")


def request(rows_ND, datatype="FP32", *, binary, outputs=None, request_id=None, **parameters):
    tensor = InferInput("features", list(rows_ND.shape), datatype)
    tensor.set_data_from_numpy(rows_ND, binary_data=binary)
    return InferRequest(
        "pump", [tensor], request_id=request_id, parameters=parameters, request_outputs=outputs
    )


def read(response, names=("score", "p_value")):
    return {name: response.get_output_by_name(name).as_numpy().tolist() for name in names}


async def main():
    asked = json.load(sys.stdin)
    url, name, version = asked["url"], asked["name"], asked["version"]
    rows_ND = np.array(asked["rows"], dtype=np.float32)  # None becomes NaN
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    async def infer(*arguments, to=name, **more):
        try:
            return await client.infer(url, request(*arguments, **more), model_name=to)
        except httpx.HTTPStatusError as error:
            return {"status": error.response.status_code, "message": str(error)}

    said = {
        "is_server_live": await client.is_server_live(url),
        "is_server_ready": await client.is_server_ready(url),
        "is_model_ready": await client.is_model_ready(url, name),
        "is_model_ready of the version": await client.is_model_ready(
            url, f"{name}/versions/{version}"
        ),
        "is_model_ready of another version": await client.is_model_ready(url, f"{name}/versions/1"),
        "is_model_ready of another model": await client.is_model_ready(url, "nobody"),
        "infer another shape": await infer(rows_ND[:, :2], binary=True),
        "infer another model": await infer(rows_ND, binary=True, to="nobody"),
        "infer of the version": read(
            await infer(rows_ND, binary=True, to=f"{name}/versions/{version}")
        ),
    }
    response = await infer(rows_ND, binary=True, request_id="first")
    said |= {
        "id": response.id,
        "model_name": response.model_name,
        "parameters": response.parameters,
    }
    said["infer"] = [
        read(await infer(rows_ND, binary=b, binary_data_output=out))
        for b in (True, False)
        for out in (True, False)
    ]
    said["infer every output"] = []
    for binary_in in (True, False):
        for binary_out in (True, False):
            outputs = [RequestedOutput(output, {"binary_data": binary_out}) for output in OUTPUTS]
            response = await infer(rows_ND, binary=binary_in, outputs=outputs)
            said["infer every output"].append(
                {
                    "names": [output.name for output in response.outputs],
                    "outputs": read(response, OUTPUTS),
                }
            )
    ones_ND = np.array([[1, 0, 1, 1], [0, 1, 1, 0]])
    datatypes = {
        "FP16": "float16",
        "FP64": "float64",
        "INT64": "int64",
        "INT32": "int32",
        "UINT8": "uint8",
        "BOOL": "bool",
    }
    said["infer datatypes"] = {
        datatype: [
            read(await infer(ones_ND.astype(numpy_name), datatype, binary=binary))
            for binary in (True, False)
            if binary or datatype != "FP16"
        ]
        for datatype, numpy_name in datatypes.items()
    }
    await client.close()
    json.dump(said, sys.stdout)


asyncio.run(main())
