"""Snippets: how this model is asked, by curl, Python, Prometheus and KServe; each runs as it stands
while `hourglass serve` does.

The row that they send is made up: of each number the middle of its range, of each category the
first. A model of windows is sent as many of it as a window has, and in a stream one.
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
    rows = 1 if manifest.window is None else manifest.window.rows
    a_row, some, last = "a row", _python([row]), ""
    if rows > 1:
        a_row, some, last = f"{rows} rows in order", f"{_python([row])} * {rows}", "[-1]"
    codes = [_code(feature) for feature in manifest.features]
    post = "-H 'content-type: application/json' -d"
    python = f'''import json
import urllib.request

rows = {some}
request = urllib.request.Request(
    "{BASE}/v1/models/{name}/score",
    data=json.dumps({{"rows": rows}}).encode(),
    headers={{"content-type": "application/json"}},
)
with urllib.request.urlopen(request, timeout=10) as answer:
    scores = json.load(answer)
print(scores["is_anomaly"]{last}, scores["severity"]{last})
'''
    promql = (
        f'sum(rate(hourglass_anomalies_total{{model="{name}"}}[1h]))'
        f' / sum(rate(hourglass_vectors_total{{model="{name}"}}[1h])) > {2 * alpha:g}'
    )

    def ask(path: str, body: str, repeated: object) -> str:
        """A curl line whose body has %s where this stands, as often as a window has rows."""
        if rows == 1:
            return f"curl -s {BASE}{path} {post} {shlex.quote(body % json.dumps(repeated))}"
        repeat = f"yes {shlex.quote(json.dumps(repeated))} | head -n {rows} | paste -sd, -"
        before, after = (json.dumps(part)[1:-1] for part in body.split("%s"))
        return f'rows=$({repeat})\ncurl -s {BASE}{path} {post} "{before}$rows{after}"'

    infer = {"name": "features", "shape": [rows, len(row)], "datatype": "FP32", "data": ["%s"]}
    tensor = json.dumps({"inputs": [infer]}).replace('["%s"]', "%s" if rows == 1 else "[%s]")
    return (
        Snippet(
            title=f"Score {a_row} with curl",
            language="sh",
            text=ask(f"/v1/models/{name}/score", '{"rows": [%s]}', row),
        ),
        *(
            [
                Snippet(
                    title="Send the next row of an entity to its stream",
                    language="sh",
                    text=(
                        f"curl -s {BASE}/v1/models/{name}/streams/some-entity {post}"
                        f" {shlex.quote(json.dumps({'rows': [row]}))}"
                    ),
                )
            ]
            if rows > 1
            else []
        ),
        Snippet(
            title="Ask why with curl",
            language="sh",
            text=ask(f"/v1/models/{name}/explain", '{"rows": [%s]}', row),
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
            text=ask(f"/v2/models/{name}/infer", tensor, codes),
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
