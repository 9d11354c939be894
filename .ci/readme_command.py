"""Print a command that the README gives: the fenced block after ``<!-- command: NAME -->``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

name = sys.argv[1]
text = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")
found = re.findall(rf"<!-- command: {name} -->\s*```bash\n(.*?)```", text, re.DOTALL)
if len(found) != 1:
    sys.exit(f"README.md has {len(found)} blocks marked '<!-- command: {name} -->'; expected one")
print(found[0].strip())
