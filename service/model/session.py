"""Session: a part of a model, as onnxruntime runs it."""

from typing import Any

import onnxruntime as ort

RESTING_BYTES = 2**18  # a larger model's session takes longer to make again


class Session:
    """Made at once; of a model that rests it is made again by the first run that asks for it."""

    __slots__ = ("__weakref__", "_data", "run")

    def __init__(self, data: bytes) -> None:
        self._data = data if len(data) <= RESTING_BYTES else None
        self.run = _make(data).run  # looked up once: it is called on the hot path

    def rest(self) -> None:
        """Let go of what a run needs, which of a small model is ten times its bytes."""
        if self._data is not None:
            self.run = self._wake

    def get_outputs(self) -> list[Any]:
        """As onnxruntime's."""
        return self.run.__self__.get_outputs()  # type: ignore[no-any-return]

    def _wake(self, outputs: list[str] | None, feed: dict[str, Any]) -> Any:
        assert self._data is not None
        self.run = _make(self._data).run
        return self.run(outputs, feed)


def _make(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # more only makes small batches slower; large ones go in runs beside each other
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # an arena of its own would hold a MiB for each of a thousand small models, and be no faster
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what goes wrong is raised, and said once
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # kept by the wrapper for ever, to fall back to a provider that is not used here
    session._model_bytes = None
    return session
