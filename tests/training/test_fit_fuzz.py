"""Odd tables are published, or refused for a reason in the data."""

import pytest

from tests.benchmarks.fits.__main__ import attempt
from tests.benchmarks.fits.tables import make, sizes_and_counts

SEEDS = (5, 14, 29, 48, 92, 113, 161, 181, 201, 221)


def test_a_seed_gives_the_same_table_again() -> None:
    assert all(make(seed).equals(make(seed)) for seed in SEEDS)
    assert not make(0).equals(make(3))


@pytest.mark.heavy
@pytest.mark.parametrize("seed", SEEDS)
def test_an_odd_table_is_published_or_refused_for_a_reason_in_it(seed: int) -> None:
    outcome = attempt(make(seed), "fast")
    assert outcome == "published" or outcome.startswith("refused")


@pytest.mark.heavy
@pytest.mark.parametrize("preset", ["balanced", "accurate"])
def test_sizes_and_counts_most_rows_of_which_are_copies_are_published(preset: str) -> None:
    """Of the 2,210 averages of neighbouring rows that `accurate` remembers a fifth is distinct."""
    assert attempt(sizes_and_counts(17), preset, steps=50) == "published"
