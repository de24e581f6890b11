"""Snippets: how this model is asked, by curl, Python, Prometheus and KServe; each runs as it stands
while `hourglass serve` does.

The row that they send is made up: of each number the middle of its range, of each category the
first.
"""

import json
import shlex
from collections.abc import Sequence
from typing import Literal

import msgspec

from hourglass.service.model.artifact import Feature, Manifest

BASE = "http://127.0.0.1:8000"


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """Text to paste."""

    title: str
    language: Literal["sh", "python", "promql"]
    text: str


def snippets_of(name: str, manifest: Manifest, alpha: float) -> tuple[Snippet, ...]:
    """For the model of that name."""
    row = [_usual(feature) for feature in manifest.features]
    body = json.dumps({"rows": [row]})
    codes = [_code(feature) for feature in manifest.features]
    tensor = {
        "inputs": [{"name": "features", "shape": [1, len(row)], "datatype": "FP32", "data": codes}]
    }
    post = "-H 'content-type: application/json' -d"
    python = f'''import json
import urllib.request

rows = {_python([row])}
request = urllib.request.Request(
    "{BASE}/v1/models/{name}/score",
    data=json.dumps({{"rows": rows}}).encode(),
    headers={{"content-type": "application/json"}},
)
with urllib.request.urlopen(request, timeout=10) as answer:
    scores = json.load(answer)
print(scores["is_anomaly"], scores["severity"])
'''
    promql = (
        f'sum(rate(hourglass_anomalies_total{{model="{name}"}}[1h]))'
        f' / sum(rate(hourglass_vectors_total{{model="{name}"}}[1h])) > {2 * alpha:g}'
    )
    return (
        Snippet(
            title="Score a row with curl",
            language="sh",
            text=f"curl -s {BASE}/v1/models/{name}/score {post} {shlex.quote(body)}",
        ),
        Snippet(
            title="Ask why with curl",
            language="sh",
            text=f"curl -s {BASE}/v1/models/{name}/explain {post} {shlex.quote(body)}",
        ),
        Snippet(title="Score rows from Python", language="python", text=python),
        Snippet(
            title="Prometheus: more than twice the budget in an hour",
            language="promql",
            text=promql,
        ),
        Snippet(
            title="The Open Inference Protocol, as KServe and Triton speak it",
            language="sh",
            text=f"curl -s {BASE}/v2/models/{name}/infer {post} {shlex.quote(json.dumps(tensor))}",
        ),
    )


def _usual(feature: Feature) -> float | bool | str | None:
    """A value as JSON has it."""
    if feature.kind == "boolean":
        return False
    if feature.kind == "categorical":
        return feature.categories[0] if feature.categories else None
    if feature.minimum is None or feature.maximum is None:
        return None
    return float(f"{feature.minimum / 2 + feature.maximum / 2:.4g}")


def _code(feature: Feature) -> float | None:
    """The same as a tensor has it."""
    value = _usual(feature)
    if feature.kind == "categorical":
        return 0.0 if feature.categories else None
    return None if value is None else float(value)


def _python(rows: Sequence[Sequence[object]]) -> str:
    return repr([list(row) for row in rows])
