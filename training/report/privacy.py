"""Privacy: what of the rows is in the model file, and in the files beside it."""

import msgspec

from hourglass.service.model.artifact import Manifest


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that derives from rows, and where it lies."""

    file: str
    what: str
    single_rows: bool  # whether it tells of single rows, rather than of many together


STORED = {
    "none": "no rows and no averages of rows in the weights and memories",
    "averages": "averages of training rows, of at least four rows each, which can be read",
    "rows": "training rows as they are, which can be read",
}


def privacy_of(
    manifest: Manifest,
    *,
    shown_on_map: int,
    suspects: int,
    listed: int,
    fingerprints: bool,
    windows: int = 0,
    entities: bool = False,
) -> tuple[Held, ...]:
    """Everything, the most telling first."""
    categories = sum(len(feature.categories) for feature in manifest.features)
    model = "model.onnx"
    held = [
        Held(
            file=model,
            what=STORED[manifest.model.stores_rows],
            single_rows=manifest.model.stores_rows == "rows",
        ),
        Held(
            file=model,
            what=(
                "the smallest and the largest value of each number among the fit rows, each a value"
                " of some row"
            ),
            single_rows=True,
        ),
        Held(
            file=model,
            what=(
                f"scores of the {manifest.calibration.n:,} calibration rows, one number a row, at"
                " most 1,024 of them"
            ),
            single_rows=True,
        ),
        Held(
            file=model,
            what="means, standard deviations and correlations of the columns, deciles, and counts",
            single_rows=False,
        ),
    ]
    if manifest.baseline is not None:
        held.append(
            Held(
                file=model,
                what=(
                    f"of each of {len(manifest.baseline.entities):,} entities its name, and the"
                    " level and spread of its numbers"
                ),
                single_rows=False,
            )
        )
    if categories:
        held.append(
            Held(
                file=model,
                what=f"the names of {categories:,} categories, also of those that one row has",
                single_rows=True,
            )
        )
    held.append(
        Held(
            file="report.html, report.json",
            what=(
                f"two coordinates of the code and the severity of each of {shown_on_map:,}"
                " held-out rows; smallest and largest values; no other cell of any row"
            ),
            single_rows=True,
        )
    )
    held.append(
        Held(
            file="report.html, report.json",
            what="run.toml, with the paths of data and models as they were given",
            single_rows=False,
        )
    )
    if windows:
        whose = ", and whose they are," if entities else ""
        held.append(
            Held(
                file="report.html, report.json",
                what=(
                    f"row numbers and times of {windows:,} strange windows{whose} with the features"
                    " that are strange, by how many standard deviations; not their values"
                ),
                single_rows=True,
            )
        )
        named = ", and entities by name" if entities else ""
        held.append(
            Held(
                file="report.html, report.json",
                what=f"alarm rates and severities of blocks and steps of time{named}",
                single_rows=False,
            )
        )
    elif suspects:
        held.append(
            Held(
                file="report.html, report.json, card.md",
                what=(
                    f"row numbers of up to {suspects:,} strange rows with the features that are"
                    " strange, by how many standard deviations; not their values"
                ),
                single_rows=True,
            )
        )
    if listed:
        held.append(
            Held(
                file="suspects.csv",
                what=f"row numbers of {listed:,} strange rows with the features that are strange",
                single_rows=True,
            )
        )
    if fingerprints:
        held.append(
            Held(
                file="fingerprints.json",
                what=(
                    "salted hashes: who has the file and a row can tell whether the row was among"
                    " them; it may be deleted"
                ),
                single_rows=True,
            )
        )
    return tuple(held)
