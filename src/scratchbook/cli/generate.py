"""Write the JSON schemas and tables that follow from the code."""

from __future__ import annotations

import argparse

from scratchbook.config.documents import generate

from .chosen import CONFIG


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(_given: argparse.Namespace) -> None:
    for path, text in generate(CONFIG).items():
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
