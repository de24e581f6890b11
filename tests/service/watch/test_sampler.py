"""Sampler: each row is as likely as any other, however many come at once."""

import numpy as np
import pytest

from hourglass.service.watch.sampler import Sampler


@pytest.mark.parametrize("share", [0.003, 0.3, 1.0])
@pytest.mark.parametrize("together", [[1], [1, 1, 700], [20_000]])
def test_every_place_of_every_run_is_as_likely(share: float, together: list[int]) -> None:
    sampler, drawn, rows = Sampler(share), np.zeros(3), 0
    while rows < (60_000 if max(together) > 1 else 6000):
        for count in together:
            places = np.asarray(sampler.places(count), np.intp)
            assert (np.diff(places) > 0).all()
            assert ((places >= 0) & (places < count)).all()
            # those of single rows, of the first halves of runs and of the second ones
            part = np.zeros(len(places), int) if count == 1 else 1 + 2 * places // count
            drawn += np.bincount(part, minlength=3)
            rows += count
    runs = rows / sum(together)
    expected = (
        share
        * runs
        * np.array([together.count(1), *[sum(count / 2 for count in together if count > 1)] * 2])
    )
    spread = np.sqrt(expected * (1 - share))
    assert (np.abs(drawn - expected) <= 5 * spread + 1e-6).all()
