"""The page in a real Chromium: no error, no request, no sideways scroll, all by keyboard."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from result_trees import make_page
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page
from scratchbook.results.paths import Results
from test_grids import RATES, report
from test_language import chinese  # noqa: F401 -- a fixture
from test_report import CAM, TEMPLATES, make_all, make_cam, make_data

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip("chromium is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    results = tmp_path_factory.mktemp("page") / "results"
    page = make_page(goal="理解 which net tells the shapes apart?", cam=CAM)
    make_data(results)
    make_all(results, page)
    make_cam(results)
    write_chapter(page, Results(results))
    write_page([page], Results(results), TEMPLATES, results / "report.html", "snakemake --cores 2")
    return results / "report.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


def opened(browser, file: Path, **context):
    """The page in a fresh context, with what it complained of and asked for."""
    page = browser.new_context(**context).new_page()
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(file.as_uri())
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("script", [True, False])
def test_it_opens_in_silence_and_never_scrolls_sideways(browser, page_file, width, scheme, script):
    page = opened(
        browser, page_file,
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=script,
    )  # fmt: skip
    assert page.complaints == []
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert page.get_by_role("heading", level=1).is_visible()
    assert page.get_by_role("heading", name="train 3 – a net").is_visible()
    assert page.get_by_role("table").first.is_visible()
    if script:
        sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1]
    else:
        assert not page.get_by_role("button").first.is_visible()
    page.context.close()


def test_the_comparison_shows_all_its_columns_on_a_laptop(browser, page_file):
    page = opened(browser, page_file, viewport={"width": 1280, "height": 800})
    table = page.locator(".scroll:has(> #shapes\\:table)")
    widths = table.evaluate("(e) => [e.scrollWidth, e.clientWidth]")
    assert widths[0] <= widths[1]
    assert page.get_by_role("columnheader", name="What changed").is_visible()
    page.context.close()


def test_the_table_sorts_and_copies_by_keyboard(browser, page_file):
    page = opened(browser, page_file, permissions=["clipboard-read", "clipboard-write"])
    names = """() => [...document.querySelectorAll("table.sortable tbody th[data-value]")]
      .map((cell) => cell.dataset.value)"""
    assert page.evaluate(names) == ["train3", "train2", "train1"]
    page.locator("#shapes\\:table thead button", has_text="Test").focus()
    page.keyboard.press("Enter")
    assert page.evaluate(names) == ["train3", "train2", "train1"]
    page.keyboard.press("Enter")
    assert page.evaluate(names) == ["train1", "train2", "train3"]
    assert page.locator("#shapes\\:table [aria-sort=ascending]").count() == 1
    page.get_by_role("button", name="Copy as CSV").focus()
    page.keyboard.press("Space")
    page.get_by_text("Copied.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert copied[0].startswith("Experiment,Parameters,")
    assert copied[1].startswith("train1")
    assert len(copied) == 4
    page.context.close()


def test_a_grids_experiments_are_sorted_and_copied_among_themselves(browser, tmp_path):
    report(tmp_path, RATES)
    page = opened(
        browser, tmp_path / "report.html", permissions=["clipboard-read", "clipboard-write"]
    )
    first = """() => [...document.querySelectorAll("[id='shapes:table'] tbody tr")]
      .map((row) => row.cells[0].dataset.value ?? row.className)"""
    members = ["sweep-0_001", "sweep-0_01", "sweep-0_1"]
    assert page.evaluate(first) == ["one", "grid", *members]
    button = page.locator("#shapes\\:table thead button", has_text="Test")
    button.click()
    button.click()
    assert page.evaluate(first) == ["one", "grid", *reversed(members)]
    page.get_by_role("button", name="Only what differs").click()
    page.get_by_role("button", name="Copy as CSV").click()
    page.get_by_text("Copied.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()").split("\n")
    assert [line.split(",")[0].split(" ")[0] for line in copied[1:]] == ["one", *reversed(members)]
    assert page.complaints == []
    page.context.close()


def test_only_what_differs_hides_the_columns_that_are_alike(browser, page_file):
    page = opened(browser, page_file)
    head = page.locator("#shapes\\:table thead th")
    before = head.count()
    page.get_by_role("button", name="Only what differs").press("Enter")
    shown = [one.inner_text() for one in head.all() if one.is_visible()]
    assert len(shown) < before
    assert "Parameters" not in shown
    assert "Test" in shown
    page.get_by_role("button", name="Only what differs").press("Enter")
    assert page.locator("#shapes\\:table th.dull").count() == 0
    page.context.close()


def test_the_chinese_page_works_as_the_english_one(browser, chinese):  # noqa: F811
    page = opened(browser, chinese[1] / "report.html", viewport={"width": 390, "height": 800})
    assert page.complaints == []
    sizes = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert sizes[0] <= sizes[1]
    page.get_by_role("button", name="切换到深色主题").press("Enter")
    assert page.get_by_role("button", name="切换到浅色主题").inner_text() == "浅色"
    page.get_by_role("button", name="放大").first.press("Enter")
    assert page.get_by_role("dialog", name="放大的图").is_visible()
    page.context.close()


def test_the_theme_can_be_switched(browser, page_file):
    page = opened(browser, page_file, color_scheme="light")
    paper = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Switch to the dark theme").press("Enter")
    assert page.evaluate(paper) != light
    page.get_by_role("button", name="Switch to the light theme").press("Enter")
    assert page.evaluate(paper) == light
    page.context.close()


@pytest.mark.parametrize("script", [True, False])
def test_maps_are_shown_in_the_rows_scale_or_each_in_its_own(browser, page_file, script):
    page = opened(browser, page_file, java_script_enabled=script)
    figure = page.locator("figure:has(.scales)").first
    for scales in (("row-scale", "own-scale"), ("own-scale", "row-scale")):
        shown, hidden = (figure.locator(f"image.{scale}") for scale in scales)
        assert shown.count() > 0
        assert hidden.count() > 0
        assert shown.first.is_visible()
        assert not hidden.first.is_visible()
        figure.get_by_label("Each map in its own scale").check()
    page.context.close()


def test_a_figure_is_enlarged_and_escape_closes_it(browser, page_file):
    page = opened(browser, page_file)
    page.get_by_role("button", name="Enlarge").first.press("Enter")
    assert page.locator("dialog svg").is_visible()
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(x => x.id)")
    assert len(ids) == len(set(ids))
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    page.context.close()


def test_printing_opens_every_detail(browser, page_file, tmp_path):
    page = opened(browser, page_file)
    pdf = page.pdf(path=tmp_path / "page.pdf", prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert page.get_by_text("Total params").first.is_visible()
    page.context.close()


CONTRAST = """() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const paper = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
      layers.push([r, g, b, a]);
      if (a === 1) break;
    }
    return layers.reverse().reduce((under, [r, g, b, a]) =>
      [r, g, b].map((c, i) => c * a + under[i] * (1 - a)), [255, 255, 255]);
  };
  const bad = [];
  for (const element of document.querySelectorAll("body *:not(svg *):not(script):not(style)")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const pair = [light(numbers(getComputedStyle(element).color)), light(paper(element))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) bad.push(`${element.className} ${ratio} ${element.textContent.slice(0, 30)}`);
  }
  return bad;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_a_contrast_of_four_and_a_half(browser, page_file, scheme):
    page = opened(browser, page_file, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate(CONTRAST) == []
    page.context.close()


def test_what_scrolls_can_be_reached_and_has_a_name(browser, page_file):
    page = opened(browser, page_file, viewport={"width": 390, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((e) =>
          ["auto", "scroll"].includes(getComputedStyle(e).overflowX)
          && e.scrollWidth > e.clientWidth && e.checkVisibility() && e.tabIndex < 0)
          .map((e) => e.outerHTML.slice(0, 80))"""
    )
    assert unnamed == []
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("navigation").count() == 1
    for button in page.get_by_role("button").all():
        assert button.inner_text() or button.get_attribute("aria-label")
    page.context.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_violation(browser, page_file, scheme, width):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
    )
    page = opened(browser, page_file, color_scheme=scheme, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []
    page.context.close()
