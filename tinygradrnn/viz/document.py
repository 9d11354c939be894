"""Pages that need nothing else: no network, no other file."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any


def asset(name: str) -> str:
    """A file that lies beside this one."""
    return files("tinygradrnn.viz").joinpath(name).read_text(encoding="utf-8")


def embedded(data: Any) -> str:
    """Data as JSON that can stand in a script element, whatever text is in it."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def document(title: str, style: str, body: str, script: str = "") -> str:
    """A whole page. It may load nothing, not even from itself."""
    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}\n</style></head>\n<body>\n{body}\n"
        f"{f'<script>{script}</script>' if script else ''}\n</body></html>\n"
    )
