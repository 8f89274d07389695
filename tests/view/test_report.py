"""The page: complete, bounded, inert whatever the names, and plain about what is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data import Labels, NucleusTable, Points, Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.view import scoring, sections
from nucleoscope.view.report import ReportImage, ReportRun, render_report, write_report

Maker = Callable[..., ReportImage]

OPEN = "document.documentElement.setAttribute('data-pwned', '1')"
PAYLOADS = [
    f"<img src=x onerror=\"{OPEN}\">",
    f"<script>{OPEN}</script>",
    f"</script><script>{OPEN}</script>",
    f"</style><script>{OPEN}</script>",
    f"</title><svg onload=\"{OPEN}\">",
    f"\"><svg/onload={OPEN}>",
    f"' onmouseover='{OPEN}",
    f"\" autofocus onfocus=\"{OPEN}\" x=\"",
    f"javascript:{OPEN}",
    "<iframe src=https://evil.test></iframe>",
    "<link rel=stylesheet href=//evil.test/x.css>",
    "<meta http-equiv=refresh content='0;url=https://evil.test'>",
    "<base href=https://evil.test/>",
    "<form action=https://evil.test><button>",
    "<!--", "-->", "]]>", "<![CDATA[", "{{ 7 * 7 }}", "{% raw %}", "${7*7}", "&lt;b&gt;",
    "<b", "\\u003c",
    "report\u202egnp.exe", "a\u2028b\u2029c", "null\x00byte", "bell\x07", "\ufeffbom", "z\u200bero",
    "\ud800", "x" * 100_000, "ünïcode µm 核", "😀", "a\r\nb\tc",
]  # fmt: skip


class Page(HTMLParser):
    """What a browser would build: tags, attributes, text, and the JSON blocks."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: list[tuple[str, str]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.blocks.append((self._inside, data))
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] or "" for _, attrs in self.tags if name in attrs]


def hostile(scene: Maker, payload: str) -> tuple[ReportRun, list[ReportImage]]:
    """A run in which every name is the payload."""
    image = scene(n=3)
    held = payload.replace("\ud800", "?")  # a table cannot hold half a character
    names = np.array([held, "positive", held], object)
    frame = image.table.frame.assign(type=names, image=held, subtype=held)
    frame[f"{held}_prob"] = 0.5
    spoiled = replace(
        image,
        name=payload,
        volume=replace(image.volume, channels=(payload, "DAPI"), name=payload),
        table=NucleusTable(frame),
        truth=Points([1.0], [20.0], [20.0], [payload.replace("\x00", "")]),
        scores={payload: {payload: 0.5}, "detection": {"f1": 0.5}, "types": {payload: {"f1": 1.0}}},
        notices=(payload,),
    )
    history = [{"step": 0, f"loss {payload}": 1.0}, {"step": 1, f"loss {payload}": 0.5}]
    return ReportRun(payload, {payload: payload}, history), [spoiled, scene()]


@pytest.fixture(scope="module")
def calm(scene: Maker) -> Page:
    return Page(render_report(*hostile(scene, "calm")))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_a_hostile_name_adds_nothing_to_the_page(scene: Maker, calm: Page, payload: str) -> None:
    text = render_report(*hostile(scene, payload))
    page = Page(text)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in calm.tags]
    assert not [n for _, attrs in page.tags for n in attrs if n.startswith("on") or n == "style"]
    assert all(uri.startswith("data:image/") for uri in page.attributes("src"))
    assert all(re.fullmatch(r"#image-\d+", link) for link in page.attributes("href"))
    assert [kind for kind, _ in page.blocks] == [kind for kind, _ in calm.blocks]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u2028\u2029\x00\x07]", text)
    assert len(text.encode("utf-8")) < 300_000


def test_the_script_shows_no_type_backwards(scene: Maker) -> None:
    run, images = hostile(scene, "a\u202eb")
    nuclei = frames(render_report(run, images[:1]))["nuclei"]
    assert isinstance(nuclei, list)
    assert {nucleus["type"] for nucleus in nuclei} == {"a\\u202eb", "positive"}


def test_a_plain_name_is_shown_as_it_is(scene: Maker) -> None:
    name = "plaque 3 (µm) & <left>"
    assert name in Page(render_report(*hostile(scene, name))).text


def test_the_policy_allows_this_style_and_this_script_only(scene: Maker) -> None:
    page = Page(render_report(ReportRun("run"), [scene()]))
    (policy,) = [c for c in page.attributes("content") if "default-src" in c]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy.replace("http-equiv", "")
    code = {kind: body for kind, body in page.blocks if not body.startswith("{")}
    for kind, directive in (("style", "style-src"), ("script", "script-src")):
        digest = base64.b64encode(hashlib.sha256(code[kind].encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in policy


def test_the_page_names_no_other_place(scene: Maker) -> None:
    text = render_report(ReportRun("run"), [scene()])
    assert not re.search(r"(?:https?:)?//[a-z]", re.sub(r"data:image/\w+;base64,\S+", "", text))


def frames(text: str) -> dict[str, object]:
    (block,) = [body for kind, body in Page(text).blocks if kind == "script" and body[0] == "{"]
    found: dict[str, object] = json.loads(block)
    return found


def test_the_script_gets_strict_json_even_for_nuclei_without_figures(scene: Maker) -> None:
    image = scene()
    frame = image.table.frame.assign(z=np.nan, type_prob=np.nan, score=np.nan)
    text = render_report(ReportRun("run"), [replace(image, table=NucleusTable(frame))])
    nuclei = frames(text)["nuclei"]
    assert isinstance(nuclei, list)
    assert {nucleus["z"] for nucleus in nuclei} == {None}
    assert "NaN" not in json.dumps(nuclei)


def test_every_slice_is_there(scene: Maker) -> None:
    data = frames(render_report(ReportRun("run"), [scene(depth=7)]))
    assert data["slices"] == list(range(7))
    assert isinstance(data["frames"], list)
    assert all(len(frame["layers"]) == 2 for frame in data["frames"])


def test_figures_are_those_of_the_table_and_the_truth(scene: Maker) -> None:
    text = Page(render_report(ReportRun("run"), [scene(n=6)])).text
    assert "6 nuclei in 1 image." in text
    assert "positive (50 %)" in text
    assert "1.000" in text, "every nucleus lies on its click"


def test_scores_count_inside_the_region_only(scene: Maker) -> None:
    image = scene(n=4)
    outside = Points([0.0, *image.truth.z], [0.0, *image.truth.y], [0.0, *image.truth.x])
    scores = scoring.truth_scores(image.table, outside, image.region)
    assert scores["detection"].fn == 0
    assert scoring.truth_scores(image.table, outside)["detection"].fn == 1


def test_given_scores_are_shown_instead_of_computed_ones(scene: Maker) -> None:
    given = {"detection": {"precision": 0.123, "f1": float("nan")}, "aji": 0.456}
    text = Page(render_report(ReportRun("run"), [replace(scene(), scores=given)])).text
    assert "0.123" in text
    assert "0.456" in text
    assert "undefined" in text
    assert "1.000" not in text


def test_an_image_without_nuclei_says_so(scene: Maker) -> None:
    text = Page(render_report(ReportRun("run"), [scene(n=0)])).text
    assert "No nuclei were found in this image inside the region." in text
    assert "annotation given for this image holds no point" in text


def test_a_run_without_images_says_so() -> None:
    assert "holds no image" in Page(render_report(ReportRun("run"), [])).text


def test_an_image_without_scale_shows_no_bar(scene: Maker) -> None:
    image = scene()
    bare = replace(image, volume=replace(image.volume, spacing=None))
    page = Page(render_report(ReportRun("run"), [bare]))
    assert "scale unknown" in page.text
    assert "bar" not in page.attributes("class")


def test_a_flat_image_without_truth_is_shown() -> None:
    data = np.random.default_rng(3).integers(0, 256, (3, 1, 30, 40), dtype=np.uint8)
    volume = Volume(data, ("red", "green", "blue"), is_rgb=True, is_2d=True)
    labels = np.zeros((1, 30, 40), np.int32)
    labels[0, 5:10, 5:10] = 1
    table = NucleusTable(pd.DataFrame({"id": [1], "y": [7.0], "x": [7.0]}))
    text = render_report(ReportRun("run"), [ReportImage("tile", volume, Labels(labels), table)])
    assert "1 nucleus in 1 image." in Page(text).text
    assert "Maximum projection" not in text


def test_training_curves_appear_when_there_are_any(scene: Maker) -> None:
    history = [{"step": i, "loss": 1 / (1 + i), "val_type_f1": 0.5} for i in range(5)]
    text = Page(render_report(ReportRun("run", history=history), [])).text
    assert "loss, at the end 0.2" in text
    assert "val type f1, at the end 0.5" in text
    assert "Training" not in Page(render_report(ReportRun("run", history=[]), [])).text


def test_the_table_stops_at_its_limit_and_says_so(scene: Maker) -> None:
    image = scene()
    n = sections.MAX_ROWS + 50
    many = pd.DataFrame({"id": np.arange(1, n + 1), "y": 5.0, "x": 6.0})
    page = Page(render_report(ReportRun("run"), [replace(image, table=NucleusTable(many))]))
    assert sum("nucleus" in c for c in page.attributes("class")) == sections.MAX_ROWS
    assert f"({sections.MAX_ROWS} of {n})" in page.text
    assert "The others are in the table file." in page.text


def test_many_images_are_all_counted_and_the_first_shown(scene: Maker) -> None:
    image = scene(size=40, depth=2, n=1)
    several = [replace(image, name=f"stack {i}") for i in range(sections.MAX_IMAGES + 3)]
    page = Page(render_report(ReportRun("run"), several))
    assert page.attributes("class").count("image") == sections.MAX_IMAGES
    assert f"stack {sections.MAX_IMAGES + 2}" in page.text
    assert f"first {sections.MAX_IMAGES} images" in page.text


def test_labels_of_another_shape_are_refused(scene: Maker) -> None:
    image = scene()
    with pytest.raises(InputError, match=r"toy: the instance map is \(1, 3, 3\)"):
        replace(image, labels=Labels(np.zeros((3, 3), np.int32)))


def test_four_stacks_of_noise_stay_below_fifteen_megabytes() -> None:
    data = np.random.default_rng(4).integers(0, 256, (2, 10, 512, 512), dtype=np.uint8)
    volume = Volume(data, ("LT", "DAPI"))
    labels = Labels(np.zeros((10, 512, 512), np.int32))
    image = ReportImage("noise", volume, labels, NucleusTable.empty())
    assert len(render_report(ReportRun("run"), [image] * 4)) < 15_000_000


def test_the_same_results_make_the_same_page(scene: Maker) -> None:
    assert render_report(ReportRun("run"), [scene()]) == render_report(ReportRun("run"), [scene()])


def test_a_file_of_the_user_is_not_replaced_unasked(scene: Maker, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine", encoding="utf-8")
    with pytest.raises(CallError, match="exists"):
        write_report(path, ReportRun("run"), [])
    assert path.read_text(encoding="utf-8") == "mine"
    assert write_report(path, ReportRun("run"), [], overwrite=True) == path
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium on this machine")
def test_a_browser_runs_our_script_and_nothing_else(scene: Maker, tmp_path: Path) -> None:
    evil = " ".join(p for p in PAYLOADS if len(p) < 200 and "\ud800" not in p)
    path = write_report(tmp_path / "r.html", *hostile(scene, evil))
    log = tmp_path / "net.json"
    browser = [
        "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}", "--dump-dom",
        path.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(browser, capture_output=True, text=True, timeout=120, check=True)
    assert 'class="ready"' in done.stdout, "our own script ran to its end"
    assert "data-pwned" not in re.sub(r"(?s)<(?:main|title).*", "", done.stdout)
    assert "evil.test" not in log.read_text(encoding="utf-8")
