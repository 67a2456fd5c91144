"""Two pages are made when the site is built: the front page is the README, the door's page lists what the door has."""

import re
from pathlib import Path

import lrd_jax

README = Path(__file__).parent.parent / "README.md"
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|#)([^)]+)\)")


def on_page_markdown(markdown: str, page, **_) -> str:
    """The text of a page, which mkdocs asks for."""
    if page.file.src_uri == "index.md":
        return LINK.sub(_turned, README.read_text())
    if page.file.src_uri == "api/lrd_jax.md":
        homes = {name: getattr(getattr(lrd_jax, name), "__module__", "lrd_jax") for name in sorted(lrd_jax.__all__)}
        return markdown + "".join(f"\n- [`{name}`][{home}.{name}]" for name, home in homes.items())
    return markdown


def _turned(link: re.Match) -> str:
    """A link into `docs/`, without that; one to what the pages do not hold, its text alone."""
    picture, text, target = link.groups()
    return f"{picture}[{text}]({target.removeprefix('docs/')})" if target.startswith("docs/") else text
