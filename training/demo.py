"""The demo's data: Breast Cancer Wisconsin (Street, Wolberg and Mangasarian, 1993), as scikit-learn
carries it; benign is normal.
"""

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from sklearn.datasets import load_breast_cancer

from hourglass.service.serving.disk import write_atomically

NAME = "tumour"
LABEL = "malignant"
DONATED = 815_184_000  # 1995-11-01, seconds since 1970


def write_data(folder: Path) -> Path:
    """Write FOLDER/tumour.csv and a request body of one benign and one malignant row; returns the
    CSV's path.
    """
    bunch: Any = load_breast_cancer()
    folder.mkdir(parents=True, exist_ok=True)
    names = [str(name).replace(" ", "_") for name in bunch.feature_names]
    malignant = 1 - bunch.target  # scikit-learn has malignant = 0
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([*names, LABEL])
    table.writerows(
        [*map(float, row), int(label)] for row, label in zip(bunch.data, malignant, strict=True)
    )
    path = folder / f"{NAME}.csv"
    write_atomically(path, text.getvalue().encode())
    os.utime(path, (DONATED, DONATED))  # the time of the data, so that each demo gives equal bytes
    for name, label in (("benign", 0), ("malignant", 1)):
        row = bunch.data[malignant == label][0]
        body = json.dumps({"rows": [dict(zip(names, map(float, row), strict=True))]}, indent=1)
        write_atomically(folder / f"{name}.json", f"{body}\n".encode())
    return path


def curl_lines(folder: Path, port: int) -> list[tuple[str, str]]:
    """What to try, and the line that does it."""
    base = f"http://127.0.0.1:{port}"
    post = f"curl -s {base}/v1/models/{NAME}"
    header = "-H 'content-type: application/json'"
    return [
        ("score a benign row", f"{post}/score {header} -d @{folder}/benign.json"),
        ("score a malignant row", f"{post}/score {header} -d @{folder}/malignant.json"),
        ("explain the malignant row", f"{post}/explain {header} -d @{folder}/malignant.json"),
        ("read the metrics", f"curl -s {base}/metrics | grep ^hourglass"),
        ("open the docs", f"{base}/docs"),
    ]
