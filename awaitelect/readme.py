"""The blocks of README.md that are made from the code, each between two marks of its own.

Not imported at run time.
"""

from __future__ import annotations

import sys
from pathlib import Path


class Block:
    """From `<!-- NAME:begin -->` to `<!-- NAME:end -->`, the marks included."""

    def __init__(self, name: str, content: str) -> None:
        self._begin, self._end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        self.content = content
        self.text = f"{self._begin}\n\n{content}\n\n{self._end}"

    def found_in(self, page: str) -> str:
        """The block as it stands in `page`; up to date if it is `text`. Raises ValueError where a mark is missing."""
        start = page.index(self._begin)
        return page[start : page.index(self._end, start) + len(self._end)]

    def put_into(self, path: Path) -> None:
        """Renew it in this file, and nothing else. Raises OSError, and ValueError where a mark is missing."""
        page = path.read_text(encoding="utf-8")
        path.write_text(page.replace(self.found_in(page), self.text), encoding="utf-8")

    def main(self) -> None:
        """The command: with --write the block is renewed in the README.md of this directory, else it is printed."""
        if "--write" in sys.argv[1:]:
            self.put_into(Path("README.md"))
        else:
            sys.stdout.write(self.content + "\n")
