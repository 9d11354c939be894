"""Print a command of the README, so that what runs on CI is what the README says.

    python3 .ci/readme_command.py tests | train

The command is the ``bash`` block that follows the comment ``<!-- command: NAME -->``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def command(name: str) -> str:
    """The text of the block, which must be there once."""
    pattern = rf"^<!-- command: {re.escape(name)} -->\s*^```bash\n(.*?)^```$"
    found = re.findall(pattern, README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    if len(found) != 1:
        sys.exit(f"README.md has {len(found)} commands marked {name!r}; expected 1")
    return found[0]


if __name__ == "__main__":
    print(command(sys.argv[1]), end="")
