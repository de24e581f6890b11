"""MLServer with a custom runtime; settings come from MLSERVER_* variables."""

import os

import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Runtime(MLModel):
    async def load(self) -> bool:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(
            os.environ["MODEL"], options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        score, p_value = self.session.run(["score", "p_value"], {"features": rows})
        outputs = [
            NumpyCodec.encode_output("score", score),
            NumpyCodec.encode_output("p_value", p_value),
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
