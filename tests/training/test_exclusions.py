from pathlib import Path

import pytest

from hourglass.training.errors import RunError
from hourglass.training.exclusions import read_row_numbers


@pytest.mark.parametrize(
    "text", ["3\n1\n", "3\r\n\r\n 1 \r\n", "row\n3\n1\n", "score,row\n.5,3\n.1,1\n", "\ufeff3\n1"]
)
def test_numbers_one_a_line_or_in_a_column_row(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    assert read_row_numbers(path, 3) == (3, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\n4\n", "line 2: there is no row 4; the data has rows 1 to 3"),
        ("0\n", "line 1: there is no row 0"),
        ("-1\n", "line 1: there is no row -1"),
        ("2\n\n2\n", "line 3: row 2 stands on line 1 already"),
        ("1\n2.5\n", "line 2: expected a row number, got '2.5'"),
        ("score\n1\n", "line 1: expected a row number or a header with a column 'row'"),
        ("score,row\n1\n", "line 2: expected a row number, got ''"),
    ],
)
def test_what_is_no_row_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(text)
    with pytest.raises(RunError) as raised:
        read_row_numbers(path, 3)
    assert message in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="absent cannot be read: No such file"):
        read_row_numbers(tmp_path / "absent", 3)
