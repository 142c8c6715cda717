"""The page, notebook.md and their figures, from synthetic result trees."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image

from result_trees import DATA, make_page, make_results, run_files
from scratchbook.cam.drift import write_drift
from scratchbook.comparison import compare, write_comparison
from scratchbook.keys import cam_key
from scratchbook.report.architecture import setting_diff, shorthand, side_by_side, summary_table
from scratchbook.report.architecture import settings as settings_of
from scratchbook.report.chapter import write_chapter
from scratchbook.report.charts import curves
from scratchbook.report.html import embedded_json, write_page
from scratchbook.report.loading import Mistake, load_notebook
from scratchbook.report.markdown import escape
from scratchbook.report.partial import missing_runs
from scratchbook.report.pictures import cam_sheet, mistake_sheet
from scratchbook.report.rules import draw_rules, drawn_arrows, in_order
from scratchbook.report.svg import SVG, finish_svg, plain
from scratchbook.results.hdf5 import leave_out_cam, read_cam
from scratchbook.results.paths import Results
from scratchbook.results.records import History

TEMPLATES = Path(__file__).parents[1] / "report"
VOID = {"meta", "br", "img", "link", "input", "hr", "area", "base", "col", "embed", "source", "wbr"}
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
    "[click](javascript:alert(1)) <javascript:alert(1)>",
    "\u202eright to left\u202c \u200f",
    "x" * 10_000,
    "👩‍🔬 數據 🧪",
    "# heading\n> quote\n- list\n1. one\n```\nfence\n***\n\n    code | table",
    '"quoted" & <b>bold</b> ${x} `tick` **star** _under_ \\ ~~gone~~',
    "a\x00b\x0bc",
]


RULES = {
    "all": ["report"],
    "report": ["train", "compare", "draw2"],
    "compare": ["train"],
    "draw2": ["train"],
    "train": [],
}


CAM = {"epochs": [1, 3, "last"], "images": 2, "layer": None, "method": "gradcam",
       "target": "label"}  # fmt: skip


def make_cam(results: Path, experiment: str = "train1", seed: int = 0, **told: Any) -> Path:
    """Maps and drift of one run of a page with `cam=CAM`: 4 epochs, 2 images on a 5×5 grid.

    `told` are other attributes of the maps. Returns their file.
    """
    classes = ("circle", "square", "triangle")
    rng = np.random.default_rng(seed)
    maps = run_files(results, experiment, seed).cam(cam_key(CAM))
    maps.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(maps, "w") as file:
        file["maps"] = rng.normal(size=(4, 2, 5, 5)).astype(np.float32)
        file["epochs"] = [0, 1, 3, 8]
        file["images"] = [0, 1]
        file["labels"] = [0, 1]
        file["probability"] = rng.dirichlet(np.ones(len(classes)), (4, 2)).astype(np.float32)
        file["names"] = ["one.png", "two.png"]
        file.attrs.update(
            layer="conv2d", method="gradcam", target="label", grid="[5, 5]",
            input_size="[8, 8]", class_names=json.dumps(classes), flags='["GRID-TOO-SMALL"]',
            missing="[]",
        )  # fmt: skip
        file.attrs.update(told)
    write_drift(maps, Results(results).notebook("shapes").drift(experiment, seed))
    return maps


def make_data(results: Path, n: int = 750) -> None:
    data = Results(results).data(DATA)
    data.parent.mkdir(parents=True)
    rng = np.random.default_rng(0)
    with h5py.File(data, "w") as file:
        file["images"] = rng.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
        file["names"] = [f"image-{i}.png" for i in range(n)]
        file["labels"], file["split"] = np.zeros(n, np.int64), np.zeros(n, np.uint8)
        file.attrs.update(dataset="shapes", source="made up", sha256="ab" * 32,
                          arrays_sha256="cd" * 32, preparing=1,
                          class_names="[]", notes="[]", duplicates="[]")  # fmt: skip


def make_all(results: Path, page: dict[str, Any], **more: Any) -> None:
    make_results(results, page, **more)
    made = Results(results)
    write_comparison(compare(page, made, resamples=50), made.notebook(page["name"]))


def copy_tables(results: Path, made: Results) -> None:
    files = made.notebook("shapes")
    files.folder.mkdir(parents=True, exist_ok=True)
    for table in (files.compare, files.comparisons):
        shutil.copyfile(results / "shapes" / table.name, table)


def render(page: dict[str, Any], results: Path, **more: Any) -> str:
    write_chapter(page, Results(results))
    output = results / "report.html"
    write_page([page], Results(results), TEMPLATES, output, "snakemake --cores 2", **more)
    return output.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A notebook with nothing missing: the page as text, its results and its HTML."""
    results = tmp_path_factory.mktemp("whole") / "results"
    page = make_page(cam=CAM)
    make_data(results)
    make_all(results, page)
    for experiment in page["experiments"]:
        for seed in page["seeds"]:
            make_cam(results, experiment["name"], seed)
    html = render(
        page,
        results,
        config={"config/config.yaml": "a: 1\n\n\nb: <2>\n"},
        requirements="keras==3.15.1\n",
        rules=RULES,
    )
    return page, results, html


class Elements(HTMLParser):
    """Start tags with their attributes, and whether every element that opens is closed."""

    def __init__(self, html: str):
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_names_nothing_outside_itself(whole):
    elements = Elements(whole[2]).found
    for tag, attributes in elements:
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            link = attributes.get(key) or "#"
            assert link.startswith(("#", "data:image/")), (tag, key, link)
    assert "http-equiv" in str(elements)
    assert "@import" not in whole[2]
    assert "url(http" not in whole[2]


def test_a_strict_policy_lets_pass_only_our_own_style_and_script(whole):
    elements = Elements(whole[2])
    policy = next(a["content"] for _, a in elements.found if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [a for _, a in elements.found if "style" in a]
    assert not [key for _, a in elements.found for key in a if key.startswith("on")]


def test_every_id_is_unique_and_every_link_inside_leads_somewhere(whole):
    elements = Elements(whole[2])
    assert elements.open == []
    ids = [a["id"] for _, a in elements.found if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a.get(key) for _, a in elements.found for key in ("href", "xlink:href")]
    links += [f"#{a['aria-labelledby']}" for _, a in elements.found if "aria-labelledby" in a]
    missing = {link for link in links if link and link.startswith("#") and link[1:] not in ids}
    assert missing == set()
    drawn = set(re.findall(r"url\(#([^)]*)\)", whole[2]))
    assert drawn <= set(ids)


def test_every_figure_has_an_alternative_text_with_its_numbers(whole):
    _, results, html = whole
    drawings = [a for tag, a in Elements(html).found if tag == "svg"]
    assert len(drawings) > 10
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert re.search(r"\d", attributes["aria-label"])
    metrics = json.loads(run_files(results, "train1").metrics.read_text())
    assert f"calibration error {metrics['splits']['test']['ece']:.3f}" in html


def test_figures_hold_no_id_that_nothing_refers_to_and_no_needless_digits(whole):
    for figure in (whole[1] / "shapes/figures").glob("*.svg"):
        svg = figure.read_text(encoding="utf-8")
        for name in re.findall(r'\bid="([^"]*)"', svg):
            assert re.search(rf"#{re.escape(name)}[\")]", svg), (figure.name, name)
        assert not re.search(r'\b(?:d|x|y)="[^"]*\.\d{3}', svg), figure.name
        assert "<g>" not in svg


@pytest.mark.parametrize("epochs", [1, 2, 8, 50])
def test_epochs_are_whole_numbers_on_the_axis(epochs):
    values = np.arange(epochs) / epochs
    history = History(
        {"epoch": np.arange(1, epochs + 1), "accuracy": values, "val_accuracy": values}
    )
    svg = curves({0: history}, {0: 1}, "accuracy", "test")
    ticks = re.findall(r'text-anchor="middle"[^>]*>([^<]*)<', svg)[: -len(("epoch", "accuracy"))]
    assert ticks
    assert all(tick.isdigit() for tick in ticks)


def test_the_page_shows_each_measured_figure_of_its_runs(whole):
    page, results, html = whole
    text = Elements(html).text
    for experiment in page["experiments"]:
        for seed in page["seeds"]:
            metrics = json.loads(run_files(results, experiment["name"], seed).metrics.read_text())
            for split in ("train", "validation", "test"):
                assert f"{100 * metrics['splits'][split]['accuracy']['value']:.1f}" in text
    for word in ("differs from recorded", "GRID-TOO-SMALL", "snakemake --cores 2", "keras==3.15.1",
                 "b: <2>", "a: 1\n\n\nb"):  # fmt: skip
        assert word in text


def test_the_compare_table_says_what_it_took_to_reach_an_accuracy(tmp_path):
    page = make_page(reach=0.6)
    make_data(tmp_path)
    make_all(tmp_path, page)
    html = render(page, tmp_path)
    assert "Reaches 60.0 %" in html
    row = html.split('<th scope="row" data-value="train3">')[1].split("</tr>")[0]
    assert re.search(r"in epoch [\d.]+<span class=\"interval\">[\d.]+ [MG]FLOP</span>", row)
    page["reach"] = 0.999
    made = Results(tmp_path)
    write_comparison(compare(page, made, resamples=50), made.notebook(page["name"]))
    assert "never" in render(page, tmp_path)


def test_machines_that_read_alike_are_told_once(tmp_path):
    page = make_page()
    make_data(tmp_path)
    make_all(tmp_path, page)
    record = run_files(tmp_path, "train1").record
    run = json.loads(record.read_text())
    run["hardware"] |= {"threads": 7}
    record.write_text(json.dumps(run))
    assert render(page, tmp_path).count("<dt>Hardware</dt>") == 1
    run["hardware"] |= {"gpus": ["NVIDIA H200"]}
    record.write_text(json.dumps(run))
    html = render(page, tmp_path)
    assert html.count("<dt>Hardware</dt>") == 2
    assert re.search("<dd[^>]*>NVIDIA H200, ", html)


def test_a_notebook_that_records_nothing_has_no_column_of_recorded_figures(tmp_path):
    page = make_page()
    make_data(tmp_path)
    make_all(tmp_path, page)
    column = re.compile(r'<th scope="col"[^>]*>Recorded</th>')
    assert column.search(render(page, tmp_path))
    for experiment in page["experiments"]:
        experiment["recorded"] = {}
    made = Results(tmp_path)
    write_comparison(compare(page, made, resamples=50), made.notebook(page["name"]))
    html = render(page, tmp_path)
    assert not column.search(html)
    head, *rows = re.findall(r"<tr>.*?</tr>", html[html.index("shapes:table") :], re.DOTALL)
    widths = {len(re.findall("<t[hd]", row)) for row in (head, *rows[: len(page["experiments"])])}
    assert len(widths) == 1


def test_the_embedded_data_are_the_compare_table(whole):
    _, results, html = whole
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL)
    notebook = json.loads(data.group(1))["notebooks"][0]
    table = (results / "shapes" / "compare.csv").read_text()
    assert [row["experiment"] for row in notebook["experiments"]] == [
        line.split(",")[0] for line in table.splitlines()[1:]
    ]
    assert notebook["key_results"][0]["status"] == "differs from recorded"


def test_the_same_files_give_the_same_bytes(whole, tmp_path):
    page, results, _ = whole
    first, second = tmp_path / "one/shapes", tmp_path / "two/shapes"
    for output, processes in ((first, 1), (second, 2)):
        made = Results(output.parent)
        copy_tables(results, made)
        write_chapter(page, Results(results), made, processes=processes)
    names = sorted(path.name for path in (first / "figures").iterdir())
    assert names == sorted(path.name for path in (second / "figures").iterdir())
    for path in [Path("notebook.md"), *(Path("figures") / name for name in names)]:
        assert (first / path).read_bytes() == (second / path).read_bytes()


def test_a_figure_of_an_experiment_that_is_gone_is_removed(whole, tmp_path):
    page, results, _ = whole
    made = Results(tmp_path)
    old = made.notebook("shapes").figure("gone-accuracy")
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")
    copy_tables(results, made)
    write_chapter(page, Results(results), made)
    assert not old.exists()
    assert made.notebook("shapes").figure("train1-accuracy").exists()


def test_two_notebooks_in_one_page_share_no_id(whole, tmp_path):
    page, results, _ = whole
    other = make_page("others")
    copy = tmp_path / "results"
    shutil.copytree(results, copy)
    make_all(copy, other)
    write_chapter(other, Results(copy))
    write_page([page, other], Results(copy), TEMPLATES, copy / "report.html", "snakemake")
    ids = [a["id"] for _, a in Elements((copy / "report.html").read_text()).found if "id" in a]
    assert {"shapes", "others", "others.train1"} <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_page_with_nothing_run_yet_says_so(tmp_path):
    page = make_page()
    html = render(page, tmp_path)
    text = Elements(html).text
    assert "This page is incomplete" in text
    assert text.count("seeds 0, 1 are missing (run.json is not there)") >= len(page["experiments"])
    assert "No run of this experiment is here yet" in text
    assert "No run of this experiment is here yet" in (tmp_path / "shapes/notebook.md").read_text()


def read_in_both(page: dict[str, Any], results: Path) -> tuple[str, str]:
    """What report.html shows, and what notebook.md does, both without markup."""
    html = re.sub(r"<(script|style)\b.*?</\1>", "", render(page, results), flags=re.DOTALL)
    return Elements(html).text, re.sub(r"[\\*]", "", (results / "shapes/notebook.md").read_text())


def test_a_diverged_seed_is_told_and_leaves_no_page_incomplete(tmp_path):
    page = make_page()
    make_data(tmp_path)
    make_all(tmp_path, page, diverged={("train2", 0): 3, ("train3", 0): 1, ("train3", 1): 0})
    for text in read_in_both(page, tmp_path):
        assert "train2: seed 0 diverged in epoch 3" in text
        assert "train3: seed 0 diverged in epoch 1" in text
        assert "train3: seed 1 diverged, as the run that it starts from did" in text
        for code in (
            "The loss is not a number from epoch 3 on; the run diverged.",
            "The loss is not a number from epoch 1 on; the run diverged.",
        ):
            assert code in text
        assert "ncomplete." not in text
        # Its runs are here, though none has a figure.
        assert "No run of this experiment is here yet" not in text
    notebook = load_notebook(page, Results(tmp_path))
    assert [len(one.runs) for one in notebook.experiments] == [2, 1, 0]
    assert not (tmp_path / "shapes/figures/train3-loss.svg").exists()
    assert missing_runs([page], Results(tmp_path)) == []


def test_a_seed_that_is_left_out_is_told_and_not_missed(tmp_path):
    page = make_page()
    page["experiments"][1] |= {"runs": {0: page["experiments"][1]["runs"][0]}, "left_out": [1, 7]}
    make_data(tmp_path)
    make_all(tmp_path, page)
    for text in read_in_both(page, tmp_path):
        for seed in (1, 7):
            assert f"train2: seed {seed} is left out, as the notebook says" in text
        assert "ncomplete." not in text
        assert "missing" not in text


@pytest.mark.parametrize(("baseline", "told"), [("train1", "again"), ("again", "train1")])
def test_experiments_that_are_the_same_runs_say_so(tmp_path, baseline, told):
    page = make_page(experiments=("train1", "train2", "again"), baseline=baseline)
    page["experiments"][2]["runs"] = page["experiments"][0]["runs"]
    make_data(tmp_path)
    make_all(tmp_path, page)
    for text in read_in_both(page, tmp_path):
        assert f"Mind: {told}: these are the runs of {baseline}, counted once" in text
        assert f"Mind: these are the runs of {baseline}, counted once" in text
        assert text.count("counted once") == 2


def test_maps_that_could_not_be_made_are_told_with_the_reason(tmp_path):
    page = make_page(experiments=("train1", "train2"), seeds=(0, 1), cam=CAM)
    make_data(tmp_path)
    make_all(tmp_path, page)
    make_cam(tmp_path, "train1", 0)
    make_cam(tmp_path, "train1", 1, missing="[3, 5]")
    make_cam(tmp_path, "train2", 0)
    leave_out_cam(
        run_files(tmp_path, "train2", 1).cam(cam_key(CAM)), "shapes.h5 is of other pixels"
    )
    for text in read_in_both(page, tmp_path):
        assert (
            "train1: seed 1: no weights were kept of epochs 3, 5, so Grad-CAM leaves them out"
        ) in text
        assert "train2: seed 1 has no Grad-CAM: shapes.h5 is of other pixels" in text
        assert "ncomplete." not in text
    figures = {file.stem for file in (tmp_path / "shapes/figures").glob("*-cam.svg")}
    assert figures == {"train1-seed0-cam", "train1-seed1-cam", "train2-seed0-cam"}
    assert not [
        text
        for text in load_notebook(page | {"cam": None}, Results(tmp_path)).remarks
        if "Grad-CAM" in text
    ]


MIXED = {
    "precision": ({"precision": "mixed_bfloat16"}, "float32", "mixed_bfloat16", "数值精度"),
    "backend": ({"backend": "jax"}, "tensorflow", "jax", "后端"),
    "Keras": ({"packages": {"keras": "3.99.0"}}, "3.15.1", "3.99.0", "Keras"),
    "device": ({"device": "NVIDIA H200"}, "a CPU", "NVIDIA H200", "设备"),
    "our code for loop": ({"training": {"loop": 2}}, "1", "2", "本软件的“训练循环”代码"),
}


@pytest.mark.parametrize("aspect", MIXED)
def test_what_compared_runs_mix_is_told_in_the_languages_words(tmp_path, aspect):
    page = make_page(experiments=("train1", "train2", "train3"))
    page["experiments"][2]["runs"] = page["experiments"][0]["runs"]  # which count once
    make_data(tmp_path)
    make_all(tmp_path, page)
    assert load_notebook(page, Results(tmp_path)).remarks == [
        "train3: these are the runs of train1, counted once"
    ]
    changed, old, new, chinese = MIXED[aspect]
    record = run_files(tmp_path, "train2", 1).record
    record.write_text(json.dumps(json.loads(record.read_text()) | changed))
    for text in read_in_both(page, tmp_path):
        assert (
            f"Runs that are compared were not made alike. {aspect}: {old} (train1 seed 0, train1 "
            f"seed 1, train2 seed 0), {new} (train2 seed 1)."
        ) in text
        assert text.count("not made alike") == 1
        assert "ncomplete." not in text
    for text in read_in_both(page | {"language": "zh"}, tmp_path):
        assert (
            f"所比较的运行并非在相同条件下得到。{chinese}：{old}（train1 随机种子 0, train1 "
            f"随机种子 1, train2 随机种子 0）, {new}（train2 随机种子 1）。"
        ) in text


@pytest.mark.parametrize(
    ("broken", "content"),
    [("run.json", "{"), ("history.csv", ""), ("metrics.json", "nonsense"), ("predictions.h5", ""),
     ("cam.h5", "no"), ("drift.csv", ""), ("data.h5", "no")],
)  # fmt: skip
def test_one_broken_file_spoils_no_page(tmp_path, broken, content):
    page = make_page(experiments=("train1", "train2"), seeds=(0,), cam=CAM)
    make_data(tmp_path)
    make_all(tmp_path, page)
    run, made = run_files(tmp_path, "train1"), Results(tmp_path)
    files = {
        "run.json": run.record, "history.csv": run.history, "metrics.json": run.metrics,
        "predictions.h5": run.predictions, "cam.h5": make_cam(tmp_path),
        "drift.csv": made.notebook("shapes").drift("train1", 0), "data.h5": made.data(DATA),
    }  # fmt: skip
    assert files[broken].exists()
    files[broken].write_text(content)
    text = Elements(render(page, tmp_path)).text
    assert "train 2" in text
    if broken in ("run.json", "history.csv", "metrics.json", "data.h5"):
        assert "incomplete" in text


def test_a_run_without_validation_images_shows_its_test_figures_and_says_how_chosen(tmp_path):
    page = make_page(experiments=("train1", "train2"), seeds=(0,), metric="val_accuracy")
    for experiment in page["experiments"]:
        experiment["spec"]["validation"] = "test"
    make_all(tmp_path, page)
    text = Elements(render(page, tmp_path)).text
    assert "CHERRY-PICKED" in text
    assert "Learning curves: train dashed, test solid" in text


def test_more_than_twenty_classes_are_drawn_and_their_worst_pairs_listed(tmp_path):
    classes = tuple(f"class {i}" for i in range(24))
    page = make_page(experiments=("train1", "train2"), seeds=(0,))
    make_all(tmp_path, page, classes=classes)
    html = render(page, tmp_path)
    assert "most confused pairs" in html
    assert "Confusion matrix of 24 classes" in html
    assert (tmp_path / "shapes/figures/train1-confusion.svg").exists()


def test_hostile_text_in_every_field_comes_out_as_text(tmp_path):
    every = " ".join(HOSTILE)
    page = make_page(experiments=("train1",), seeds=(0,), goal=every, title=every, notes=HOSTILE)
    page["key_results"] = [
        {"text": re.sub(r"[{}]", "", text), "recorded": None} for text in HOSTILE
    ]
    page["experiments"][0] |= {"title": every, "notes": HOSTILE}
    make_all(tmp_path, page)
    elements = Elements(render(page, tmp_path, config={every: every}))
    for text in HOSTILE:
        assert text.replace("\x00", "\ufffd") in elements.text.replace("\x00", "\ufffd")
    assert [tag for tag, _ in elements.found].count("script") == 2
    assert not [tag for tag, _ in elements.found if tag == "img"]
    assert not [a for _, a in elements.found if "javascript:" in (a.get("href") or "")]

    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(
        (tmp_path / "shapes" / "notebook.md").read_text(encoding="utf-8")
    )
    parsed = Elements(html)
    assert not {tag for tag, _ in parsed.found} & {"script", "a", "del"}
    assert [tag for tag, _ in parsed.found].count("h1") == 1
    assert all(a["src"].startswith("figures/") for tag, a in parsed.found if tag == "img")


@settings(deadline=None)
@given(st.text(max_size=60))
def test_escaped_text_reads_in_markdown_as_it_was_written(text):
    # U+0085 and the like are spaces to Python and text to CommonMark: compare without spaces.
    markdown = "> " + escape(text.replace("\n", " "))
    html = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(markdown)
    shown = Elements(html)
    assert {tag for tag, _ in shown.found} <= {"blockquote", "p"}
    kept = "".join(c for c in text if c >= " " and c not in "\ufffe\uffff")
    assert "".join(shown.text.split()) == "".join(kept.split())


def test_only_what_xml_forbids_is_dropped_from_a_text():
    every = "a\u00a0b\u3000c\td 👩\u200d🔬 笔记\u200b"
    assert plain(every) == every.replace("\t", " ")
    assert plain("a\x00b\x0bc\ufffed\r\ne\rf") == "abcd\ne\nf"
    assert escape(f"x{every}x") == f"x{every}x".replace("\t", " ")
    assert escape("a\r# b") == "a\n\\# b"
    root = ElementTree.Element(f"{{{SVG}}}svg", width="1pt", height="1pt")
    svg = finish_svg(root, every + "\x00\n.")
    assert ElementTree.fromstring(svg).get("aria-label") == every.replace("\t", " ") + " ."
    picture = np.zeros((8, 8, 3), np.uint8)
    mistake = Mistake(picture, every, "b", 1.0, "")
    words = "".join(ElementTree.fromstring(mistake_sheet([mistake])).itertext())
    assert "is a\u00a0b\u3000c d 👩\u200d🔬…" in words


@pytest.mark.parametrize(
    ("seen", "window"),
    [((8, 8), np.s_[:, :]), ((3, 6), np.s_[2:5, 1:7]), ((9, 9), np.s_[:, :])],
)
def test_maps_are_laid_over_what_the_network_sees_of_a_picture(tmp_path, seen, window):
    cam = replace(read_cam(make_cam(tmp_path)), input_size=seen)
    pictures = list(np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8))
    stored = ElementTree.fromstring(cam_sheet(cam, pictures)).iterfind(f".//{{{SVG}}}defs/*")
    for picture, image in zip(pictures, stored, strict=True):
        png = base64.b64decode(image.attrib["href"].partition(",")[2])
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png))), picture[window])


def test_notebook_md_keeps_the_spaces_and_joined_emoji_of_titles_and_goal(tmp_path):
    page = make_page(experiments=("train1",), goal="问题\u3000一：\u00a0哪个？ 👩\u200d🔬")
    render(page, tmp_path)
    text = (tmp_path / "shapes/notebook.md").read_text(encoding="utf-8")
    assert text.startswith("# Goal: 问题\u3000一：\u00a0哪个？ 👩\u200d🔬\n")


@settings(deadline=None)
@given(st.text())
def test_embedded_json_cannot_end_its_element(text):
    data = embedded_json({"text": text})
    assert not set("<>&") & set(data)
    assert json.loads(data)["text"] == text


SEED_TABLE = """\
Layer (type)                 Output Shape              Param #
=================================================================
conv2d_1 (Conv2D)            (None, 30, 30, 32)        896
_________________________________________________________________
max_pooling2d_1 (MaxPooling2 (None, 14, 14, 64)        0
_________________________________________________________________
predictions (Dense)          (None, 10)                650
=================================================================
Total params: 1,602,058
Trainable params: 1,602,058
Non-trainable params: 0"""  # without the spaces at the ends of its lines


def test_the_layer_table_is_the_seeds_own_to_the_character():
    rows = [
        ("conv2d_1", "Conv2D", [None, 30, 30, 32], 896),
        ("max_pooling2d_1", "MaxPooling2D", [None, 14, 14, 64], 0),
        ("predictions", "Dense", [None, 10], 650),
    ]
    keys = ("name", "class_name", "output_shape", "parameters")
    layers = [dict(zip(keys, row, strict=True)) for row in rows]
    parameters = {"total": 1602058, "trainable": 1602058, "non_trainable": 0}
    lines = summary_table(layers, parameters).split("\n")
    assert "\n".join(line.rstrip() for line in lines) == SEED_TABLE
    assert {len(line) for line in lines[:-3]} == {65}


def _layer(kind: str, shape: list[int], **config: Any) -> dict[str, Any]:
    return {"name": kind.lower(), "class_name": kind, "output_shape": [None, *shape],
            "parameters": 1, "config": config}  # fmt: skip


def test_the_shorthand_names_convolutions_by_their_map_and_dense_layers_by_their_units():
    layers = [
        _layer("Conv2D", [32, 32, 32]),
        _layer("Conv2D", [32, 32, 64]),
        _layer("MaxPooling2D", [16, 16, 64]),
        _layer("Conv2D", [16, 16, 128]),
        _layer("BatchNormalization", [16, 16, 128]),
        _layer("Flatten", [32768]) | {"parameters": 0},
        _layer("Dense", [1024], units=1024),
        _layer("Dense", [1024], units=1024),
        _layer("Dense", [10], units=10, activation="softmax"),
    ]
    assert shorthand(layers) == "conv32×2 + conv16 + fc1024×2 + softmax"


def test_an_added_layer_moves_no_other_out_of_line():
    before = [_layer("Conv2D", [], filters=8), _layer("Flatten", []), _layer("Dense", [], units=2)]
    after = [before[0], _layer("Dropout", [], rate=0.5), before[1], _layer("Dense", [], units=4)]
    assert [mark for mark, _, _ in side_by_side(before, after)] == ["=", "+", "=", "~"]
    assert side_by_side(after, before)[1] == ("−", "Dropout(rate=0.5)", "")


def test_the_setting_diff_shows_only_what_differs():
    before = {"batch_size": 32, "epochs": 5, "optimizer": {"class_name": "Adam", "config": {}}}
    assert setting_diff(before, before | {"epochs": 9}) == [("epochs", "5", "9")]


SCHEDULE = {"warm_up": 2, "decay": "cosine", "every": None, "factor": None}


def test_what_only_some_experiments_have_is_a_hyper_parameter_and_a_change():
    before = {"batch_size": 32, "optimizer": {"class_name": "Adam", "config": {}}}
    start = {"experiment": "train1", "checkpoint": "best"}
    after = before | {"schedule": SCHEDULE, "initial_weights": start, "label_smoothing": 0.1}
    after["test_time_flip"] = "horizontal"
    assert settings_of(after) == {
        "initial_weights": "experiment=train1, checkpoint=best",
        "optimizer": "Adam",
        "schedule": "warm_up=2, decay=cosine",
        "label_smoothing": "0.1",
        "test_time_flip": "horizontal",
        "batch_size": "32",
        "train_samples": "all",
    }
    assert setting_diff(before, after) == [
        ("initial_weights", "not set", "experiment=train1, checkpoint=best"),
        ("schedule", "not set", "warm_up=2, decay=cosine"),
        ("label_smoothing", "not set", "0.1"),
        ("test_time_flip", "not set", "horizontal"),
    ]


def test_the_page_and_the_notebook_show_a_schedule_and_a_warm_start(tmp_path):
    page = make_page()
    page["experiments"][1]["spec"] |= {
        "schedule": SCHEDULE,
        "initial_weights": {"experiment": "train1", "checkpoint": "best"},
    }
    make_data(tmp_path)
    make_all(tmp_path, page)
    html = render(page, tmp_path)
    for text in (html, (tmp_path / "shapes/notebook.md").read_text()):
        assert "warm_up=2, decay=cosine" in text
        assert "experiment=train1, checkpoint=best" in text


def test_an_experiment_may_have_the_name_of_a_missing_value(tmp_path):
    names = ("nan", "null", "none")
    page = make_page(experiments=names, seeds=(0,))
    page["key_results"] = []
    make_all(tmp_path, page)
    notebook = load_notebook(page, Results(tmp_path))
    assert {row["experiment"] for row in notebook.rows} == set(names)
    assert {one.row["experiment"] for one in notebook.experiments} == set(names)
    assert [(row["first"], row["second"]) for row in notebook.pairs] == [
        ("nan", "null"), ("nan", "none"), ("null", "none")
    ]  # fmt: skip
    assert all(row["recorded"] is None for row in notebook.rows if row["experiment"] == "none")
    make_all(tmp_path, make_page(experiments=names))  # with a second seed
    assert {row["seeds"] for row in load_notebook(page, Results(tmp_path)).rows} == {2}


def test_one_pair_and_one_core_are_told_in_the_singular(tmp_path):
    page = make_page(seeds=(0,))  # of three pairs, two are with the baseline
    make_all(tmp_path, page)
    for file in tmp_path.glob("runs/*/seed0/run.json"):
        file.write_text(file.read_text().replace('"cores": 2', '"cores": 1'))
    text = Elements(render(page, tmp_path)).text
    assert "The other 1 pair" in text
    assert "The other 1 pairs" not in text
    assert re.search(r"a CPU, 1 core\b", text)


def test_the_data_set_has_the_images_of_the_run_that_trains_on_most(tmp_path):
    page = make_page(seeds=(0,))
    make_all(tmp_path, page)
    file = run_files(tmp_path, "train1").record
    file.write_text(file.read_text().replace('"train": 400', '"train": 300'))
    assert "(400 train, 150 validation, 200 test images)" in Elements(render(page, tmp_path)).text


def test_rules_are_listed_after_those_they_read():
    assert in_order(RULES) == ["train", "compare", "draw2", "report", "all"]


def test_the_rule_graph_draws_every_rule_and_no_arrow_that_others_imply():
    svg = draw_rules(RULES)
    assert all(f">{rule}</text>" in svg for rule in RULES)
    assert ("train", "report") not in drawn_arrows(RULES)
    assert len(drawn_arrows(RULES)) == 5
    assert "report reads train, compare, draw2" in svg


def test_the_rule_graph_depends_on_no_order():
    turned = {rule: RULES[rule][::-1] for rule in reversed(RULES)}
    drawn = [re.sub('aria-label="[^"]*"', "", draw_rules(rules)) for rules in (RULES, turned)]
    assert drawn[0] == drawn[1]


def test_notebook_md_has_the_form_of_the_seeds(whole):
    text = (whole[1] / "shapes" / "notebook.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines[0] == "# Goal: Which net tells the shapes apart?"
    assert "## Key results" in lines
    assert "## train 1 - a net" in lines
    assert "### id: `shapes-1030`" in lines
    assert "### results" in lines
    assert "> note on train1" in lines
    (run, _) = whole[0]["experiments"][0]["runs"].values()
    weights = rf"> weights: `runs/{run}/checkpoints/shapes-1030-06-0\.60\.weights\.h5`"
    assert any(re.fullmatch(weights, line) for line in lines)
    for link in re.findall(r"\]\((figures/[^)]*)\)", text):
        assert (whole[1] / "shapes" / link).exists()


def test_of_very_many_experiments_the_best_and_the_baseline_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("scratchbook.report.loading.ILLUSTRATED", 1)
    page = make_page(seeds=(0,))
    make_all(tmp_path, page)
    text = Elements(render(page, tmp_path)).text
    drawn = {path.stem.split("-")[0] for path in (tmp_path / "shapes/figures").iterdir()}
    assert drawn == {"compare", "train3", "train1"}
    assert "Of 3 experiments, only 2 have figures: the best and the baseline." in text


def test_names_of_experiments_clash_with_no_part_of_the_page(tmp_path):
    names = ("compare", "table", "key-results", "title", "content")
    page = make_page("reproduce", experiments=names, seeds=(0,))
    make_all(tmp_path, page)
    ids = [a["id"] for _, a in Elements(render(page, tmp_path)).found if "id" in a]
    assert len(ids) == len(set(ids))
