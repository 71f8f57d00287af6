"""Links from a report to its cases on the reading page, which work where `mammodet view` serves the report."""

import re
from urllib.parse import quote

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"  # of a report
SVG_CASES = "#cases:"  # of a link in a figure, before its fragment
_HREF, _TO = 'href="#cases"', "data-cases"
_LINK = re.compile(rf'{_HREF} {_TO}="([^"<>]*)"')


def case_fragment(**wanted: str | float) -> str:
    """`image=a%2Fb.png`, `show=missed&threshold=0.3`, ...: what the page shows when it follows `#` (docs/view.md)."""
    return "&".join(f"{name}={quote(str(value), safe='', errors='backslashreplace')}" for name, value in wanted.items())


def svg_links(figure: str) -> str:
    """A figure whose links are as those of the report's tables."""
    return re.sub(rf'xlink:href="{SVG_CASES}([^"<>]*)"', rf'{_HREF} {_TO}="\1"', figure)


def linked(report: str, page: str) -> str:
    """A report whose links lead to the page, an address that ends with `#`; else they say how to open it."""
    return _LINK.sub(lambda found: f'href="{page}{found[1]}"', report)
