import math

import numpy as np
import pytest
import torch
from torch import Tensor

from hourglass.service.model.artifact import UNSEEN, Feature
from hourglass.training.features import INPUT_LIMIT, LOGIT_LIMIT, Encoded, Encoding

NAN = math.nan
FEATURES = (
    Feature(name="load", kind="numeric"),
    Feature(name="open", kind="boolean"),
    Feature(name="site", kind="categorical", categories=("north", "south", "west")),
    Feature(name="fixed", kind="numeric"),
    Feature(name="broken", kind="numeric"),
)
# load has mean 4 and standard deviation 2
ROWS = np.tile(
    np.array(
        [
            [2.0, 0.0, 0.0, 5.0, NAN],
            [6.0, 1.0, 1.0, 5.0, NAN],
            [2.0, 1.0, 2.0, 5.0, NAN],
            [6.0, 0.0, NAN, 5.0, NAN],
            [NAN, NAN, 0.0, 5.0, NAN],
        ],
        dtype=np.float32,
    ),
    (20, 1),
)
FLOOR = 1 / (len(ROWS) + 1)
LOAD, OPEN, SITE, FIXED, BROKEN = range(5)


@pytest.fixture
def encoding() -> Encoding:
    return Encoding(FEATURES, ROWS)


def encode(encoding: Encoding, *rows: list[float]) -> Encoded:
    return encoding.encode(torch.tensor(rows))


def test_a_number_is_standardised_a_boolean_kept_and_a_category_becomes_one_hot(
    encoding: Encoding,
) -> None:
    values_NE, observed_ND = encode(encoding, [8.0, 1.0, 2.0, 5.0, NAN])
    assert values_NE.tolist() == [[2.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    assert observed_ND.tolist() == [[1.0, 1.0, 1.0, 1.0, 0.0]]


def test_missing_cells_are_zero_and_masked(encoding: Encoding) -> None:
    values_NE, observed_ND = encode(encoding, [NAN] * 5)
    assert not values_NE.any()
    assert not observed_ND.any()


def test_the_network_reads_the_mask_beside_values_held_within_ten_deviations(
    encoding: Encoding,
) -> None:
    encoded = encode(encoding, [4.0 + 2.0 * 50, NAN, 1.0, 5.0, NAN])
    assert encoding.inputs(encoded).tolist() == [[INPUT_LIMIT, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 1]]
    assert encoding.inputs(encoded).shape == (1, encoding.input_width)


def test_a_constant_keeps_its_unit(encoding: Encoding) -> None:
    values_NE, _ = encode(encoding, [4.0, 0.0, 0.0, 7.5, NAN])
    assert values_NE[0, 5] == 2.5


def test_a_feature_that_was_always_missing_counts_as_missing_ever_after(encoding: Encoding) -> None:
    encoded = encode(encoding, [4.0, 0.0, 0.0, 5.0, 1e9])
    assert encoded.observed_ND[0, BROKEN] == 0
    assert encoding.errors(torch.ones(1, 7), encoded)[0, BROKEN] == 0


def test_numbers_close_together_far_from_zero_are_told_apart_as_well_as_float32_can() -> None:
    seconds = (1.7e9 + 128.0 * np.arange(100)).astype(np.float32)[:, None]
    encoding = Encoding([Feature(name="when", kind="numeric")], seconds)
    values_N1, _ = encoding.encode(torch.from_numpy(seconds))
    assert float(values_N1.std()) == pytest.approx(1.0, rel=0.02)
    assert abs(float(values_N1.mean())) < 0.05


def test_the_error_of_a_number_is_its_squared_distance_in_deviations(encoding: Encoding) -> None:
    encoded = encode(encoding, [8.0, 0.0, 0.0, 4.0, NAN])
    outputs_NE = torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.0, 0.25, 0.0]])
    errors_ND = encoding.errors(outputs_NE, encoded)
    assert errors_ND[0, LOAD] == pytest.approx((2.0 - 0.5) ** 2)
    assert errors_ND[0, FIXED] == pytest.approx((-1.0 - 0.25) ** 2)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("logit", [-1.5, 0.0, 0.7])
def test_the_error_of_a_boolean_is_minus_its_log_likelihood(
    encoding: Encoding, value: float, logit: float
) -> None:
    outputs_NE = torch.tensor([[0.0, logit, 0.0, 0.0, 0.0, 0.0, 0.0]])
    error = encoding.errors(outputs_NE, encode(encoding, [4.0, value, 0.0, 5.0, NAN]))[0, OPEN]
    p_true = 1 / (1 + math.exp(-logit))
    assert error == pytest.approx(-math.log(p_true if value else 1 - p_true), rel=1e-5)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_error_of_a_category_is_its_cross_entropy(encoding: Encoding, code: int) -> None:
    logits = [0.3, -0.4, 0.9]
    outputs_NE = torch.tensor([[0.0, 0.0, *logits, 0.0, 0.0]])
    error = encoding.errors(outputs_NE, encode(encoding, [4.0, 0.0, float(code), 5.0, NAN]))[
        0, SITE
    ]
    total = sum(math.exp(logit) for logit in logits)
    assert error == pytest.approx(-math.log(math.exp(logits[code]) / total), rel=1e-5)


@pytest.mark.parametrize("code", [UNSEEN, 3.0, 1.5])
def test_a_category_not_met_is_as_likely_as_the_rule_of_succession_says(
    encoding: Encoding, code: float
) -> None:
    error = encoding.errors(torch.zeros(1, 7), encode(encoding, [4.0, 0.0, code, 5.0, NAN]))[
        0, SITE
    ]
    assert error == pytest.approx(-math.log(FLOOR), rel=1e-6)


def test_no_discrete_value_is_less_likely_than_one_never_seen(encoding: Encoding) -> None:
    certain_of_the_other = torch.tensor([[0.0, 100.0, -100.0, 100.0, -100.0, 0.0, 0.0]])
    errors_ND = encoding.errors(certain_of_the_other, encode(encoding, [4.0, 0.0, 2.0, 5.0, NAN]))
    assert errors_ND[0, [OPEN, SITE]].tolist() == pytest.approx([-math.log(FLOOR)] * 2, rel=1e-5)


def test_missing_cells_have_no_error(encoding: Encoding) -> None:
    errors_ND = encoding.errors(torch.full((1, 7), 3.0), encode(encoding, [NAN] * 5))
    assert errors_ND.tolist() == [[0.0] * 5]


def test_decoding_what_was_encoded_gives_the_row_back(encoding: Encoding) -> None:
    rows_ND = torch.from_numpy(ROWS[:3]).clone()
    values_NE = encoding.encode(rows_ND).values_NE
    sure_NE = torch.where(encoding.numeric_E > 0, values_NE, LOGIT_LIMIT * (2 * values_NE - 1))
    decoded_ND = encoding.decode(sure_NE)
    assert torch.allclose(decoded_ND[:, :BROKEN], rows_ND[:, :BROKEN], rtol=1e-6, atol=1e-6)


def test_of_equally_likely_categories_the_first_is_expected_however_they_are_rounded(
    encoding: Encoding,
) -> None:
    second = encoding.slices[SITE].start + 1
    for more, expected in ((-1e-6, 0.0), (0.0, 0.0), (1e-6, 0.0), (1e-2, 1.0)):
        outputs_NE = torch.zeros(1, encoding.encoded_width)
        outputs_NE[0, second] = more
        assert encoding.decode(outputs_NE)[0, SITE] == expected


def test_a_boolean_is_decoded_to_its_probability_and_a_category_to_the_likeliest(
    encoding: Encoding,
) -> None:
    decoded_ND = encoding.decode(torch.tensor([[0.0, math.log(3), 0.1, 0.9, 0.2, 0.0, 0.0]]))
    assert decoded_ND[0].tolist() == pytest.approx([4.0, 0.75, 1.0, 5.0, 0.0])


@pytest.mark.parametrize("value", [1e38, -1e38, 3.4e38, math.inf, -math.inf])
def test_extreme_values_have_large_and_finite_errors(encoding: Encoding, value: float) -> None:
    encoded = encode(encoding, [value] * 5)
    outputs_NE = torch.full((1, 7), 1e30)
    assert torch.isfinite(encoded.values_NE).all()
    assert torch.isfinite(encoding.inputs(encoded)).all()
    assert torch.isfinite(encoding.decode(outputs_NE)).all()
    errors_ND = encoding.errors(torch.zeros(1, 7), encoded)
    assert torch.isfinite(errors_ND).all()
    assert errors_ND[0, LOAD] > 1e11


def test_a_column_of_the_largest_and_smallest_float32_is_encoded_to_ones() -> None:
    column = np.array([[3e38], [-3e38]] * 5, dtype=np.float32)
    encoding = Encoding([Feature(name="huge", kind="numeric")], column)
    values_N1, _ = encoding.encode(torch.from_numpy(column))
    assert values_N1.ravel().tolist() == pytest.approx([1.0, -1.0] * 5)


def test_what_stood_in_a_hidden_cell_has_no_influence(encoding: Encoding) -> None:
    hidden_ND = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])

    def hidden(row: list[float]) -> Tensor:
        return encoding.inputs(encoding.hide(encode(encoding, row), hidden_ND))

    missing = encoding.inputs(encode(encoding, [NAN, NAN, NAN, 5.0, NAN]))
    for row in (
        [2.0, 0.0, 0.0, 5.0, NAN],
        [1e38, 1.0, 2.0, 5.0, NAN],
        [-7.0, 0.0, UNSEEN, 5.0, NAN],
    ):
        assert torch.equal(hidden(row), missing)


class TestLossBce:
    FEATURES = (Feature(name="grey", kind="numeric"), Feature(name="open", kind="boolean"))

    @pytest.fixture
    def encoding(self) -> Encoding:
        return Encoding(
            self.FEATURES, np.array([[0.0, 0.0], [1.0, 1.0], [0.25, 1.0]], dtype=np.float32), "bce"
        )

    def test_a_number_is_a_probability_and_is_not_scaled(self, encoding: Encoding) -> None:
        assert encode(encoding, [0.25, 1.0]).values_NE.tolist() == [[0.25, 1.0]]

    def test_its_error_is_the_relative_entropy(self, encoding: Encoding) -> None:
        x, logit = 0.3, 0.8
        p = 1 / (1 + math.exp(-logit))
        error = encoding.errors(torch.tensor([[logit, 0.0]]), encode(encoding, [x, 1.0]))[0, 0]
        assert error == pytest.approx(
            x * math.log(x / p) + (1 - x) * math.log((1 - x) / (1 - p)), rel=1e-4
        )

    def test_a_value_that_is_met_has_no_error(self, encoding: Encoding) -> None:
        logit = math.log(0.3 / 0.7)
        error = encoding.errors(torch.tensor([[logit, 0.0]]), encode(encoding, [0.3, 1.0]))[0, 0]
        assert error == pytest.approx(0.0, abs=1e-6)

    def test_a_value_outside_stands_out_by_its_squared_distance(self, encoding: Encoding) -> None:
        inside, outside = (
            encoding.errors(torch.zeros(1, 2), encode(encoding, [x, 1.0]))[0, 0] for x in (1.0, 4.0)
        )
        assert outside - inside == pytest.approx(9.0)

    def test_a_fit_row_outside_is_refused_by_name(self) -> None:
        rows_ND = np.array([[0.5, 0.0], [1.5, 1.0]], dtype=np.float32)
        with pytest.raises(ValueError, match=r"'grey' holds 1\.5"):
            Encoding(self.FEATURES, rows_ND, "bce")

    def test_a_number_is_decoded_to_its_probability(self, encoding: Encoding) -> None:
        assert encoding.decode(torch.tensor([[math.log(3), 0.0]]))[0].tolist() == pytest.approx(
            [0.75, 0.5]
        )


def test_the_loss_mse_is_for_numbers_alone() -> None:
    with pytest.raises(ValueError, match="'open' is boolean"):
        Encoding(FEATURES, ROWS, "mse")


def test_columns_are_summed_over_their_feature_and_numbers_need_no_matrix_for_it(
    encoding: Encoding,
) -> None:
    columns = torch.arange(1.0, 8.0).unsqueeze(0)  # load, open, three sites, fixed, broken
    assert encoding.gather(columns).tolist() == [[1.0, 2.0, 3.0 + 4.0 + 5.0, 6.0, 7.0]]
    numbers = Encoding((FEATURES[LOAD], FEATURES[FIXED]), ROWS[:, [LOAD, FIXED]])
    assert numbers.gather(columns[:, :2]).tolist() == [[1.0, 2.0]]
    assert numbers.members_ED.numel() == 0


def test_encoded_rows_are_repeated_joined_and_taken_apart_in_order() -> None:
    encoded = Encoded(torch.arange(10.0).reshape(5, 2), torch.arange(5.0).unsqueeze(1))
    twice = encoded.repeat(2)
    assert twice.observed_ND[:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    assert torch.equal(twice.values_NE, torch.cat([encoded.values_NE, encoded.values_NE]))
    chunks = list(encoded.chunks(2))
    assert [chunk.observed_ND[:, 0].tolist() for chunk in chunks] == [[0, 1], [2, 3], [4]]
    first, second, third = chunks
    again = first.concatenate(second).concatenate(third)
    assert torch.equal(again.values_NE, encoded.values_NE)
    assert torch.equal(again.observed_ND, encoded.observed_ND)
