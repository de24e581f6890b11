"""Modules: the console's chart modules and the page's own, as one script, since a file that opens
offline can import nothing.

Each module becomes a function of its own, so that no name of one meets another's; what it exports
is what the function returns. Only the forms that these modules have are read: `import { a, b } from
"./name.js";` on one line, and `export function` or `export const`.
"""

import re
from importlib.resources import files

CHARTS = (
    "words",
    "frame",
    "bars",
    "heatmap",
    "histogram",
    "line",
    "scatter",
)  # what they import first
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(?:charts/)?(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (function|const) (\w+)", re.MULTILINE)


def bundle() -> str:
    """The text of one ES module."""
    charts = files("hourglass.service") / "console" / "charts"
    parts = [wrap(name, (charts / f"{name}.js").read_text(encoding="utf-8")) for name in CHARTS]
    page = files("hourglass.training") / "report" / "page.js"
    return "\n".join([*parts, wrap("page", page.read_text(encoding="utf-8"))])


def wrap(name: str, text: str) -> str:
    """A module as a function that is called at once; ValueError where a form of it is not known."""
    exported = [found[2] for found in _EXPORT.finditer(text)]
    text = _IMPORT.sub(r"const {\1} = $\2;", text)
    text = _EXPORT.sub(r"\1 \2", text)
    if left := re.search(r"^(import|export)\b.*", text, re.MULTILINE):
        raise ValueError(f"{name}.js has a form of import or export that is not read: {left[0]}")
    if "</script" in text.lower() or "<!--" in text:
        raise ValueError(f"{name}.js holds what would end or hide the script that it stands in")
    return f"const ${name} = (() => {{\n{text}\nreturn {{ {', '.join(exported)} }};\n}})();"


def styles() -> str:
    """The console's styles, and the page's own."""
    console = files("hourglass.service") / "console" / "styles.css"
    page = files("hourglass.training") / "report" / "page.css"
    return "\n".join(each.read_text(encoding="utf-8") for each in (console, page))
