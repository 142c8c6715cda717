"""The page in Chinese: every message translated, nothing left in English, notes as written."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib
import pandas as pd
import pytest
from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from projects import REPOSITORY
from result_trees import make_page, run_files
from scratchbook.comparison import compare, resolve_claim
from scratchbook.language import LOCALE, speaking, tr, tr_n
from scratchbook.report.chapter import write_chapter
from scratchbook.report.html import write_page
from scratchbook.results.paths import Results
from test_report import CAM, RULES, TEMPLATES, make_all, make_cam, make_data

KEYWORDS = {
    "tr": None, "tr_n": (1, 2), "mark": None,
    "_": None, "gettext": None, "ngettext": (1, 2),  # of the templates
}  # fmt: skip
FIELD = re.compile(r"%\(\w+\)s|%%|\{\w*(?::[^}]*)?\}")


def said_in_the_sources() -> set[Any]:
    """What `pybabel extract` finds in the code and the templates."""
    found = set()
    for folder in ("src/scratchbook", "report"):
        for _, _, message, _, _ in extract_from_dir(
            REPOSITORY / folder,
            method_map=[("**.py", "python"), ("**.j2", "jinja2")],
            options_map={
                "**.j2": {
                    "trimmed": "true",
                    "newstyle_gettext": "true",
                    "extensions": "jinja2.ext.i18n",
                }
            },
            keywords=KEYWORDS,
        ):
            found.add(message)
    return found


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    with (LOCALE / "zh/LC_MESSAGES/scratchbook.po").open("rb") as file:
        return read_po(file, locale="zh")


def test_the_catalog_is_in_step_with_the_sources(catalog: Catalog) -> None:
    translated = {message.id for message in catalog if message.id}
    said = said_in_the_sources()
    assert len(said) > 200
    assert said - translated == set(), "translate these in scratchbook.po"
    assert translated - said == set(), "remove these from scratchbook.po"


def test_every_message_is_translated_with_the_same_fields(catalog: Catalog) -> None:
    for message in catalog:
        if not message.id:
            continue
        plural = isinstance(message.id, tuple)
        meant, told = (message.id[1], message.string[0]) if plural else (message.id, message.string)
        assert told, message.id
        assert not message.fuzzy, message.id
        assert sorted(FIELD.findall(meant)) == sorted(FIELD.findall(told)), message.id
        assert re.findall(r"</?\w+", meant) == re.findall(r"</?\w+", told), message.id
        assert not list(message.check(catalog))


def test_no_message_hides_where_the_extractor_cannot_see_it() -> None:
    for file in (REPOSITORY / "src").glob("scratchbook/**/*.py"):
        for text in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(text, ast.JoinedStr):
                continue
            for call in ast.walk(text):
                hidden = isinstance(call, ast.Call) and getattr(call.func, "id", "") in KEYWORDS
                assert not (hidden and isinstance(call.args[0], ast.Constant)), file


@pytest.mark.parametrize("template", sorted(TEMPLATES.glob("*.j2")), ids=lambda path: path.stem)
def test_no_template_says_a_word_that_cannot_be_translated(template: Path) -> None:
    source = template.read_text(encoding="utf-8")
    for meant in (r"\{% trans.*?endtrans %\}", r"\{\{.*?\}\}", r"\{%.*?%\}"):
        source = re.sub(meant, "", source, flags=re.DOTALL)
    assert not re.findall(r'(?:aria-label|title|alt)="[^"]*[A-Za-z]', source)
    words = re.findall("[A-Za-z]{2,}", re.sub(r"<[^>]*>", " ", source))
    assert set(words) <= {"Scratchbook", "Markdown", "LaTeX", "Python", "id"}


def test_a_figure_that_was_not_measured_is_told_in_chinese() -> None:
    row = {"experiment": "net", "status": "failed: seed 0 was not trained (no run.json)"}
    rows = pd.DataFrame([row | {"test_accuracy": float("nan")}])
    with speaking("zh"):
        claim = resolve_claim("最好 {net.test_accuracy:.2f}", rows)
    assert claim.text == "最好 未测得"
    assert claim.message == "net.test_accuracy 未测得（失败）"


def test_a_message_is_english_unless_another_language_is_spoken() -> None:
    english = tr("{images:,} images", images=1200)
    with speaking("zh"):
        assert tr("{images:,} images", images=1200) == "1,200 张图像"
        with speaking("en"):
            assert tr("{images:,} images", images=1200) == english == "1,200 images"
        assert tr("{name} is in no catalog", name="<b>{x}</b>") == "<b>{x}</b> is in no catalog"
        assert tr_n("one", "many", 1) == "one"
    assert tr_n("{n} thing", "{n} things", 2) == "2 things"


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path, str]:
    """A Chinese notebook with a missing run, one that diverged, one that is left out, one of
    another machine, and maps with a gap: its page, results and HTML."""
    results = tmp_path_factory.mktemp("chinese") / "results"
    page = make_page(
        title="形状", goal="哪个网络能分清形状？", lang="zh", notes=["我的笔记，an English note"],
        language="zh", reach=0.6, cam=CAM,
    )  # fmt: skip
    page["key_results"] = [{"text": "最好 {train3.val_accuracy:.2f}", "recorded": 0.83}]
    for number, experiment in enumerate(page["experiments"]):
        experiment |= {"title": "网络", "notes": [f"笔记 {number}"]}
    make_data(results)
    page["experiments"][2] |= {"left_out": [7]}
    make_all(results, page, classes=("圆", "方", "三角"), diverged={("train1", 1): 3})
    make_cam(results, missing="[5]")
    run_files(results, "train2", 1).record.unlink()
    record = run_files(results, "train3").record
    other = {"packages": {"keras": "3.99.0"}, "training": {"loop": 2}}
    record.write_text(json.dumps(json.loads(record.read_text()) | other))
    write_chapter(page, Results(results), processes=2)
    write_page(
        [page], Results(results), TEMPLATES, results / "report.html", "snakemake", rules=RULES,
        config={"config/config.yaml": "language: zh"}, requirements="keras==3.15.1",
    )  # fmt: skip
    return page, results, (results / "report.html").read_text(encoding="utf-8")


CODE = {"code", "pre", "script", "style"}
CODE_CLASSES = {"changes", "diff", "text", "arch", "source", "brand"}
NAMES = set(
    re.findall(
        r"\w+",
        """train1 train2 train3 train shapes seed0 Shapes made up id CSV Markdown LaTeX JSON UTC CPU
        F1 AUROC Brier Grad CAM GRID TOO SMALL Spearman sha256 Scratchbook Python keras Keras
        tensorflow cpu numpy float32 conv2d compare csv run json all draw2 draw report png image an
        English note UNDERTRAINED SEED NOISE circle square triangle MFLOP""",
    )
)


def shown(element: Element) -> list[str]:
    """The words that a reader sees or hears, code and names of the Keras world left out."""
    classes = set((element.get("class") or "").split())
    if element.tag in CODE or classes & CODE_CLASSES:
        return [element.tail or ""]
    attributes = ("aria-label", "title", "alt")
    found = [element.text or "", *(element.get(key) or "" for key in attributes)]
    for child in element:
        found += shown(child)
    return [*found, element.tail or ""]


def test_the_chinese_page_leaves_nothing_in_english(chinese) -> None:
    document = html5lib.parse(chinese[2], namespaceHTMLElements=False)
    text = " ".join(shown(document))
    words = set(re.findall(r"[A-Za-z][A-Za-z0-9]+", text))
    assert words - NAMES == set()
    for said in (
        "主要结果",
        "本页不完整",
        "缺少随机种子 1 的结果",
        "随机种子 1 在第 3 轮发散",
        "不包括随机种子 7",
        "第 5 轮的权重没有保留",
        "本软件的“训练循环”代码：1",
        "更好：",
        "与原记录不同",
        "复现",
    ):
        assert said in text
    buttons = json.loads(document.find("body").get("data-words"))
    assert not re.search("[A-Za-z]", "".join(buttons.values()))


def test_the_languages_of_tool_and_notes_are_told_to_browsers(chinese) -> None:
    document = html5lib.parse(chinese[2], namespaceHTMLElements=False)
    assert document.get("lang") == "zh"
    assert {e.get("lang") for e in document.iter() if e.get("lang")} == {"zh"}


def test_an_english_notebook_in_a_chinese_page_keeps_its_language(chinese, tmp_path: Path) -> None:
    page = chinese[0] | {"lang": "en", "goal": "Which net?"}
    write_page([page], Results(chinese[1]), TEMPLATES, tmp_path / "page.html", "snakemake")
    document = html5lib.parse((tmp_path / "page.html").read_text(), namespaceHTMLElements=False)
    article = document.find(".//article")
    assert article.get("lang") == "en"
    assert article.find(".//blockquote").get("lang", "en") == "en"
    assert article.find(".//section[@class='compare']").get("lang") == "zh"


def test_the_chinese_notebook_md_has_chinese_headings_and_figures(chinese) -> None:
    folder = chinese[1] / "shapes"
    text = (folder / "notebook.md").read_text(encoding="utf-8")
    assert text.startswith("# 目标: 哪个网络能分清形状？\n")
    headings = re.findall("^#+ (.*)", text, re.MULTILINE)
    assert {"主要结果", "比较", "超参数", "结果", "各轮次的 Grad-CAM", "错误分析"} <= set(headings)
    assert "准确率" in (folder / "figures/train1-accuracy.svg").read_text(encoding="utf-8")


def test_what_other_programs_read_stays_english(chinese) -> None:
    page, results, html = chinese
    data = json.loads(re.search(r'id="page:data">(.*?)</script>', html, re.DOTALL)[1])
    assert data["notebooks"][0]["key_results"][0]["status"] == "differs from recorded"
    with speaking("en"):
        assert (
            "is better: " in compare(page, Results(results), resamples=50).pairs["verdict"].iloc[1]
        )
    assert "is better: " in (results / "shapes/comparisons.csv").read_text(encoding="utf-8")
