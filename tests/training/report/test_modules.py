"""The console's modules as one script."""

import pytest

from hourglass.training.report.modules import CHARTS, bundle, wrap


def test_a_module_becomes_a_function_that_returns_what_it_exports() -> None:
    text = 'import { a, b } from "./other.js";\nconst c = 1;\nexport function d() {\n  return a + b + c;\n}\n'
    assert wrap("mine", text) == (
        "const $mine = (() => {\nconst { a, b } = $other;\nconst c = 1;\nfunction d() {\n"
        "  return a + b + c;\n}\n\nreturn { d };\n})();"
    )


@pytest.mark.parametrize(
    "text",
    [
        'import x from "./x.js";',
        'import { a } from "https://example.org/a.js";',
        "export default 1;",
        'export { a } from "./a.js";',
        'const a = "</script>";',
    ],
)
def test_a_form_that_is_not_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"mine\.js"):
        wrap("mine", text)


def test_every_module_stands_before_those_that_import_it() -> None:
    script = bundle()
    places = [script.index(f"const ${name} =") for name in (*CHARTS, "page")]
    assert places == sorted(places)
    assert script.count("import ") == 0
