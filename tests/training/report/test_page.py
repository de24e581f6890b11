"""report.html and card.md as text: what they hold, and what cannot break out of them."""

import base64
import hashlib
import html
import re

import msgspec
import pytest

from hourglass.training.report.card import write_card
from hourglass.training.report.facts import Facts
from hourglass.training.report.page import write_page
from tests.training.report.conftest import Run

EVIL = '</script><img src=x onerror="alert(1)">\u202e\x07`|*'
SECTIONS = (
    "Checks", "Alarms by budget", "Scores of held-out rows", "What it can and cannot see",
    "The same rows by other methods", "The strangest rows", "Data", "Map of the code, and learning",
    "Privacy", "Cost", "Reproducibility", "Snippets",
)  # fmt: skip


def renamed(facts: Facts, name: str) -> Facts:
    """The same, with `alone` called otherwise wherever it stands."""
    text = msgspec.json.encode(facts).decode()
    encoded = msgspec.json.encode(name).decode()[1:-1]
    return msgspec.json.decode(text.replace('"alone"', f'"{encoded}"'), type=Facts)


def test_every_section_is_there_and_in_the_contents(contaminated: Run) -> None:
    page = write_page(contaminated.facts)
    contents = re.findall(r'<li><a href="#(\w+)">([^<]+)</a>', page)
    assert tuple(html.unescape(name) for _, name in contents) == SECTIONS
    for number, (anchor, name) in enumerate(contents, 2):
        assert f'<section id="{anchor}"><h2>{number}. {name}</h2>' in page
    assert "<b>1. Verdict: warn.</b>" in page


def test_it_is_one_file_of_less_than_a_megabyte_that_refers_to_nothing(contaminated: Run) -> None:
    page = write_page(contaminated.facts)
    assert len(page.encode()) < 1_000_000
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert "@import" not in page
    assert "url(" not in page
    assert (contaminated.folder / "report.html").read_text() == page


def test_a_table_as_wide_as_training_takes_fits_as_well(contaminated: Run) -> None:
    facts = contaminated.facts
    assert facts.power
    wide = "x" * 60
    columns = tuple(
        msgspec.structs.replace(facts.data.columns[0], name=f"{wide}{i}") for i in range(5000)
    )
    power = tuple(
        msgspec.structs.replace(facts.power.features[0], feature=f"{wide}{i}") for i in range(60)
    )
    facts = msgspec.structs.replace(
        facts,
        data=msgspec.structs.replace(facts.data, columns=columns),
        power=msgspec.structs.replace(facts.power, features=power, of_features=5000),
        map=msgspec.structs.replace(
            facts.map, held_out=((-1.2345e-6, 1.2345e-6),) * 2000, severity=(1.2345,) * 2000
        ),
    )
    page = write_page(facts)
    assert len(page.encode()) < 1_000_000
    assert "report.json has the other 4,800." in page
    assert "60 of 5,000 features were drawn." in page


def test_only_its_own_script_and_style_may_run(contaminated: Run) -> None:
    page = write_page(contaminated.facts)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    (script,) = re.findall(r'<script type="module">(.*?)</script>', page, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert policy.startswith("default-src 'none'; ")
    for rule, text in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{rule} 'sha256-{digest}';" in policy
    assert not re.search(r"<[^>]+\s(style|on\w+)=", page)


def test_what_stands_in_a_name_is_text(contaminated: Run) -> None:
    page = write_page(renamed(contaminated.facts, EVIL))
    assert "<img" not in page
    assert page.count("</script>") == 2
    (block,) = re.findall(r'id="facts">(.*?)</script>', page, re.DOTALL)
    assert "<" not in block
    names = [each["feature"] for each in msgspec.json.decode(block)["power"]["features"]]
    assert EVIL in names
    shown = "&lt;/script&gt;&lt;img src=x onerror=&quot;alert(1)&quot;&gt;\\u202e\\u0007`|*"
    assert f"<td>{shown}</td>" in page


def test_a_card_holds_what_the_page_says(contaminated: Run) -> None:
    card = write_card(contaminated.facts)
    assert (contaminated.folder / "card.md").read_text() == card
    assert card.startswith("# pump\n")
    assert contaminated.facts.verdict.text in card.replace("\\", "")
    assert "- Of real anomalies nothing is known: there are no labels." in card
    assert "| alone | numeric | 0 of 500 |" in card
    evil = write_card(renamed(contaminated.facts, EVIL))
    assert "<img" not in re.sub(r"\\<", "", evil)
    for line in evil.splitlines():
        if line.startswith("| \\<"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 6


@pytest.mark.parametrize("text", ["report.html, report.json", "fingerprints.json", "suspects.csv"])
def test_what_of_the_rows_is_in_each_file_is_said(contaminated: Run, text: str) -> None:
    assert text in [each.file for each in contaminated.facts.privacy] + ["suspects.csv"]
    assert f"<td>{text}</td>" in write_page(contaminated.facts)
