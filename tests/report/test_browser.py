"""report.html in a real browser: nothing is requested, nothing fails, and what one points at is what one sees."""

from __future__ import annotations

import json
import re
import shutil
import zlib
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import yaml
from rsatoolbox.rdm import load_rdm

from brainrdl.analysis import save_rdms
from brainrdl.data.thumbnails import save_thumbnails
from brainrdl.report import write_report, write_reports
from brainrdl.report.drawing import Figures

HOSTILE = "<img src=x onerror=document.title='hostile'>"
# What ends a script, and what plotly takes for tags and a formula.
CLASSES = ["</script><b>zero</b>", "<b>$x^2$</b>"]
METHODS = {"baseline": (0.10, 0.0), HOSTILE: (0.06, 0.6)}
N = 12
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no browser to drive")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: the page is not opened")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, synthetic_run):
    """A run with pictures of its stimuli, of which one pair of one RDM was not measured."""
    folder = tmp_path_factory.mktemp("browser") / "run"
    synthetic_run(folder, METHODS, (0, 1), n_test=40, n_classes=2, names=CLASSES, n_figure=N)
    path = folder / "baseline" / "seed-0" / "rdms.h5"
    rdms = load_rdm(str(path))
    rdms.dissimilarities[-1, 0] = np.nan  # softmax, last epoch: of the first two stimuli
    save_rdms(rdms, path)
    stimuli = rdms.pattern_descriptors["stimulus"]
    save_thumbnails({s: np.full((8, 8, 3), 20 * k, np.uint8) for k, s in enumerate(stimuli)}, folder / "thumbnails.npz")
    return folder


@pytest.fixture(scope="module")
def written(run):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("brainrdl.report.task_report.draw", lambda run, out, formats: Figures())
        return write_report(run).page


@contextmanager
def opened(browser, path, width=1280):
    """The page in a window; at the end nothing may have failed or been asked for."""
    told, requests = [], []
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.on("console", lambda message: told.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: told.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (told.append("dialog"), dialog.dismiss()))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector("#rdm .nsewdrag")
    yield page
    page.close()
    assert told == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]


@pytest.fixture(scope="module")
def the_page(browser, written):
    with opened(browser, written) as page:
        yield page


@pytest.fixture
def page(the_page):
    """The page, showing the fc layer of the baseline's first seed, last epoch."""
    choose(the_page, network="baseline", layer="fc", seed="0", scale="this RDM's own range")
    the_page.focus("#epoch")
    the_page.keyboard.press("End")
    return the_page


def by_class(rdms):
    """Stimuli as the page shows them: by class, in a class as they stand in the file."""
    labels = list(rdms.pattern_descriptors["label"])
    order = sorted(range(len(labels)), key=lambda k: labels[k])
    return [rdms.pattern_descriptors["stimulus"][k] for k in order]


def stored(run, layer, epoch, method="baseline", seed=0):
    """The RDM in the file: ids as the page shows them, and a function (id, id) -> value."""
    rdms = load_rdm(str(run / method / f"seed-{seed}" / "rdms.h5")).subset("layer", layer).subset("epoch", epoch)
    row = {stimulus: k for k, stimulus in enumerate(rdms.pattern_descriptors["stimulus"])}
    (matrix,) = rdms.get_matrices()
    return by_class(rdms), lambda a, b: matrix[row[a], row[b]]


def choose(page, **values):
    for name, value in values.items():
        page.select_option(f"#{name}", label=value)


def point_at(page, row, column):
    """Move the mouse onto the middle of a cell."""
    place = page.locator("#rdm .nsewdrag").first
    place.scroll_into_view_if_needed()
    box = place.bounding_box()
    x = box["x"] + box["width"] * (column + 0.5) / N
    y = box["y"] + box["height"] * (row + 0.5) / N
    page.mouse.move(x - 2, y - 2)
    page.mouse.move(x, y)
    page.wait_for_timeout(150)  # plotly tells of a hover after a while


def shown_value(page):
    return page.inner_text("#pair .value")


@pytest.mark.parametrize(("row", "column"), [(1, 9), (9, 1), (11, 0), (4, 7)])
def test_pointing_at_a_cell_shows_its_two_stimuli_and_their_value(page, run, row, column):
    point_at(page, row, column)
    ids, value = stored(run, "fc", 7)
    names = page.locator("#pair .who").all_inner_texts()
    assert [name.split("\n")[0] for name in names] == [ids[row], ids[column]]
    assert [name.split("\n")[1] for name in names] == [CLASSES[row >= N // 2], CLASSES[column >= N // 2]]
    label, number = shown_value(page).split(": ")
    assert label == "euclidean"
    assert float(number) == pytest.approx(value(ids[row], ids[column]), rel=1e-3)
    pictures = page.locator("#pair img")
    assert [pictures.nth(k).get_attribute("alt") for k in range(2)] == [f"picture of {ids[k]}" for k in (row, column)]
    grey = "i => { const c = document.createElement('canvas'); const x = c.getContext('2d'); x.drawImage(i, 0, 0); "
    grey += "return x.getImageData(1, 1, 1, 1).data[0]; }"
    assert pictures.nth(0).evaluate(grey) == 20 * int(ids[row].split("/")[1])


def test_a_stimulus_with_itself_and_a_pair_that_was_not_measured(page, run):
    choose(page, network="baseline", layer="softmax")
    rdms = load_rdm(str(run / "baseline" / "seed-0" / "rdms.h5"))
    ids = by_class(rdms)
    missing = [ids.index(rdms.pattern_descriptors["stimulus"][k]) for k in (0, 1)]
    point_at(page, 3, 3)
    assert shown_value(page) == "a stimulus with itself: 0"
    z = page.evaluate("document.getElementById('rdm').data[0].z")
    assert [(i, j) for i in range(N) for j in range(N) if z[i][j] is None] == sorted(
        [tuple(missing), tuple(missing[::-1])]
    )
    point_at(page, *missing)
    assert shown_value(page) == "euclidean: not measured"
    point_at(page, 0, 0)
    page.focus("#rdm")
    for key, steps in (("ArrowUp", 12), ("ArrowLeft", 12), ("ArrowDown", missing[0]), ("ArrowRight", missing[1])):
        for _ in range(steps):
            page.keyboard.press(key)
    assert shown_value(page) == "euclidean: not measured"


def test_the_arrow_keys_go_from_pair_to_pair(page, run):
    point_at(page, 0, 0)
    page.focus("#rdm")
    for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
        page.keyboard.press(key)
    ids, value = stored(run, "fc", 7)
    assert float(shown_value(page).split(": ")[1]) == pytest.approx(value(ids[2], ids[1]), rel=1e-3)


def test_the_epoch_control_changes_the_picture_the_map_and_what_is_said(page, run):
    assert page.inner_text("#rdm-title") == "baseline, fc, seed 0, after epoch 8"
    image = page.locator("#rdm .heatmaplayer image").get_attribute("href")
    places = page.evaluate("document.getElementById('map').data.map(t => t.x)")
    point_at(page, 2, 8)
    before = shown_value(page)
    page.focus("#epoch")
    page.keyboard.press("ArrowLeft")
    assert page.inner_text("#epoch-text") == "before training"
    assert page.get_attribute("#epoch", "aria-valuetext") == "before training"
    assert page.inner_text("#rdm-title") == "baseline, fc, seed 0, before training"
    assert page.locator("#rdm .heatmaplayer image").get_attribute("href") != image
    assert shown_value(page) != before  # the pair stays, its value is this epoch's
    ids, value = stored(run, "fc", -1)
    z = page.evaluate("document.getElementById('rdm').data[0].z")
    expected = [[value(a, b) for b in ids] for a in ids]
    np.testing.assert_allclose(z, expected, atol=1e-4 * np.max(expected))
    moved = page.evaluate("document.getElementById('map').data.map(t => t.x)")
    names = page.evaluate("document.getElementById('map').data.map(t => t.name)")
    assert moved[names.index("baseline")] != places[names.index("baseline")]
    assert moved[names.index("teacher")] == places[names.index("teacher")]


def test_the_epochs_can_be_played_and_stop_at_the_last(page):
    page.click("#play")
    assert page.get_attribute("#play", "aria-label") == "Stop"
    for text in ("before training", "after epoch 8"):
        page.locator("#epoch-text", has_text=text).wait_for(timeout=10_000)
    page.locator("#play[aria-label='Play the epochs']").wait_for(timeout=10_000)


def test_a_click_on_a_point_of_the_map_shows_its_rdm(page):
    page.locator("#map .nsewdrag").first.scroll_into_view_if_needed()
    # The point that lies farthest from all others, so that none lies above it.
    point = page.evaluate(
        """() => {
          const map = document.getElementById("map");
          const view = JSON.parse(document.getElementById("report-data").textContent).views[0];
          const points = [];
          map.querySelectorAll(".scatterlayer .trace").forEach((trace, t) => {
            trace.querySelectorAll("path.point").forEach((path, k) => {
              const box = path.getBoundingClientRect(), rdm = view.rdms[map.data[t].customdata[k]];
              const names = { network: view.networks[rdm.network], layer: view.layers[rdm.layer] };
              points.push({ x: box.x + box.width / 2, y: box.y + box.height / 2, ...names });
            });
          });
          const room = (p) => Math.min(...points.filter((q) => q !== p).map((q) => Math.hypot(p.x - q.x, p.y - q.y)));
          const others = points.filter((p) => !["pixels", "labels"].includes(p.network));
          return others.sort((a, b) => room(b) - room(a))[0];
        }"""
    )
    choose(page, network="pixels")
    page.mouse.move(point["x"] - 1, point["y"] - 1)
    page.mouse.move(point["x"], point["y"])
    page.wait_for_timeout(150)
    page.mouse.click(point["x"], point["y"])
    title = page.inner_text("#rdm-title")
    assert title.startswith(f"{point['network']}, {point['layer']}")
    assert page.locator("#network option:checked").inner_text() == point["network"]
    assert page.locator("#layer option:checked").inner_text() == point["layer"]


def test_another_seed_and_a_common_colour_scale(page, run):
    choose(page, network="baseline", layer="fc", seed="1")
    ids, value = stored(run, "fc", 7, seed=1)
    z = page.evaluate("document.getElementById('rdm').data[0].z")
    np.testing.assert_allclose(z, [[value(a, b) for b in ids] for a in ids], atol=1e-3)
    own = page.evaluate("document.getElementById('rdm').data[0].zmax")
    assert own == pytest.approx(np.max(z))
    choose(page, scale="one range for this layer")
    largest = page.evaluate(
        """() => { const view = JSON.parse(document.getElementById("report-data").textContent).views[0];
          return Math.max(...view.rdms.filter((r) => view.layers[r.layer] === "fc").map((r) => r.high)); }"""
    )
    assert page.evaluate("document.getElementById('rdm').data[0].zmax") == largest > own


def test_curves_follow_the_chosen_quantity(page):
    choose(page, quantity="task loss")
    drawn = page.evaluate("document.getElementById('curves').layout.yaxis.title.text")
    assert drawn == "task loss"
    assert page.locator("#curves .scatterlayer .trace").count() == 4  # a line and a band a method


def test_a_name_made_of_tags_does_nothing(page):
    choose(page, network=HOSTILE)
    assert HOSTILE in page.inner_text("#rdm-title")
    page.wait_for_timeout(100)
    assert page.title() == "synthetic · brainrdl report"
    assert page.locator("#rdm b, #pair b, img[src='x']").count() == 0


def test_names_of_classes_stand_beside_the_rdm_as_they_are(page):
    ticks = page.locator("#rdm .xtick text").all_text_contents()
    assert ticks == ["</script><b>z…", "<b>$x^2$</b>"]


def test_plots_fit_a_printed_page_and_are_as_they_were_after(page):
    widths = "() => ['rdm', 'map', 'curves'].map((id) => document.querySelector(`#${id} .main-svg`).clientWidth)"
    before = page.evaluate(widths)
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(widths) == [460, 460, 640]
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(widths) == before


def test_every_control_has_a_name_and_every_picture_a_text(page):
    assert page.get_attribute("html", "lang") == "en"
    unnamed = """() => [...document.querySelectorAll("select, input, button, [tabindex]")].filter((e) =>
      !e.closest("[hidden]") && !(e.labels && e.labels.length) && !e.getAttribute("aria-label")).length"""
    assert page.evaluate(unnamed) == 0
    assert page.evaluate("[...document.images].filter(i => !i.alt).length") == 0
    levels = [int(tag[1]) for tag in page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(e => e.tagName)")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_nothing_is_wider_than_a_narrow_window(browser, written):
    with opened(browser, written, width=400) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_several_runs_stand_on_one_page(browser, run, tmp_path, brain_run):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("brainrdl.report.task_report.draw", lambda run, out, formats: Figures())
        other = shutil.copytree(run, tmp_path / "other")
        joint = write_reports([run, other], tmp_path / "both")
    with opened(browser, joint.page) as page:
        assert page.locator("#view option").all_inner_texts() == [f"all runs, {N} common stimuli", "run", "other"]
        assert "other: baseline" in page.locator("#network option").all_inner_texts()
        assert page.locator("#epoch-controls").is_hidden()
        choose(page, view="other")
        assert re.match(r"baseline, .*after epoch 8", page.inner_text("#rdm-title"))
        assert page.locator("#epoch-controls").is_visible()


# Names that try to do something, in every place where a user's text goes

MARK = "document.title='hostile'"
ATTACKS = [
    f"<script>{MARK}</script>",
    f"</script><script>{MARK}</script>",
    f"<img src=x onerror={MARK}>",
    f"<svg onload={MARK}>",
    f'" onmouseover="{MARK}" x="',
    f"' onfocus='{MARK}' autofocus x='",
    f"</title></style></textarea>--><svg onload={MARK}>",
    f"<a href=javascript:{MARK}>x</a>",
    f"[x](javascript:{MARK})",
    f"javascript:{MARK}",
    "{{7*7}}{% raw %}${7*7}",
    "</style><style>body{display:none}</style>",
    "red;background:url(https://x.org/a.png)",
    "`code` **strong** $x^2$",
]


def bad(text):
    """A name made hostile, the same in every file; each attack hits some names."""
    return f"{text} {ATTACKS[zlib.crc32(str(text).encode()) % len(ATTACKS)]}"


def poison(folder):
    """Make every name in a run's files hostile that is no folder's: stimuli, classes, layers, regions, subjects, …"""
    for path in folder.rglob("*.h5"):
        rdms = load_rdm(str(path))
        for name in ("layer", "roi", "subject"):
            if name in rdms.rdm_descriptors:
                rdms.rdm_descriptors[name] = [bad(value) for value in rdms.rdm_descriptors[name]]
        for name in ("stimulus", "category"):
            if name in rdms.pattern_descriptors:
                rdms.pattern_descriptors[name] = [bad(value) for value in rdms.pattern_descriptors[name]]
        save_rdms(rdms, path)
    for path in [*folder.rglob("predictions.csv"), *folder.rglob("stimuli.csv")]:
        table = pd.read_csv(path)
        table["stimulus"] = [bad(value) for value in table["stimulus"]]
        if "category" in table:
            table["category"] = [bad(value) for value in table["category"]]
            table = table.rename(columns={"category": bad("category")})
        table.to_csv(path, index=False)
    for path in folder.rglob("fold.json"):
        told = json.loads(path.read_text())
        told |= {name: [bad(value) for value in told[name]] for name in ("trained", "held_out")}
        path.write_text(json.dumps(told))
    settings = yaml.safe_load((folder / "experiment.yaml").read_text())
    settings["name"] = bad(settings["name"])
    if "score" in settings:
        settings["score"]["layers"] = [bad(value) for value in settings["score"]["layers"]]
        settings["stimuli"]["categories"] = bad("category")
        settings["stimuli"]["spec"] = settings["score"]["spec"] = bad("spec")
        for method in settings["methods"].values():
            method["layers"] = {bad(layer): bad(roi) for layer, roi in method["layers"].items()}
    else:
        settings["published"] = {"source": bad("source"), "test_error_percent": {"baseline": 3.0}}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory, synthetic_run, brain_run):
    """The pages of a run with a task, of one with brains, and of both together; their run's names are hostile, too."""
    folder = tmp_path_factory.mktemp("poisoned")
    methods = {"baseline": (0.1, 0.0), **{attack.replace("/", "|"): (0.06, 0.5) for attack in ATTACKS[:3]}}
    classes = [bad(f"class {k}") for k in range(2)]
    task = synthetic_run(folder / "a<svg onload=x>", methods, (0,), n_test=40, n_classes=2, names=classes, n_figure=N)
    brains = brain_run(folder / "b<img src=x onerror=x>", n_stimuli=12)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("brainrdl.report.task_report.draw", lambda run, out, formats: Figures())
        patched.setattr("brainrdl.report.brain_report.draw", lambda run, tables, out, formats: Figures())
        joint = write_reports([poison(task), poison(brains)], folder / "joint")
    return {
        "task": task / "report" / "report.html",
        "brain": brains / "report" / "report.html",
        "joint": joint.page,
    }


# What a name could have made: elements and attributes that no page of ours has.
FOREIGN = """() => [...document.querySelectorAll("*")].flatMap((e) => [
  ...[...e.attributes].filter((a) => a.name.startsWith("on") || /^\\s*javascript:/i.test(a.value) && a.name === "href")
    .map((a) => `${e.tagName} ${a.name}`),
  ...(e.tagName === "SCRIPT" && !["", "application/json"].includes(e.type) ? ["SCRIPT"] : []),
  ...(["IFRAME", "OBJECT", "EMBED", "BASE", "FORM"].includes(e.tagName) ? [e.tagName] : []),
  ...(e.tagName === "IMG" && !e.src.startsWith("data:") ? ["IMG"] : []),
])"""


def assert_untouched(page, title):
    assert page.title() == title
    assert page.evaluate(FOREIGN) == []
    assert page.evaluate("getComputedStyle(document.body).display") == "block"
    assert page.locator("script:not([type])").count() == 2 and page.locator("style").first.is_hidden()


@pytest.mark.parametrize("kind", ["task", "brain", "joint"])
def test_no_name_does_anything_wherever_it_stands(kind, browser, poisoned):
    joint = "a<svg onload=x> · b<img src=x onerror=x>"
    title = {"task": bad("synthetic"), "brain": bad("brains"), "joint": joint}[kind]
    with opened(browser, poisoned[kind]) as page:
        data = page.evaluate("JSON.parse(document.getElementById('report-data').textContent)")
        there = page.evaluate("document.body.textContent") + "\n".join(walked(data))
        assert sum(attack in there for attack in ATTACKS) >= 9  # which words they are is their checksums' to say
        for select in page.locator("#explorer select").all():
            if select.is_visible():
                for k in range(min(3, select.locator("option").count())):
                    select.select_option(index=k)
        point_at(page, 1, 9)
        for element in page.locator("header, nav a, td, th, .dots-row, #pair, #rdm-title, figcaption").all()[:12]:
            if element.is_visible():
                element.hover(force=True)
        page.wait_for_timeout(200)
        assert_untouched(page, f"{title} · brainrdl report")
        assert "49" not in page.inner_text("h1")


def walked(value):
    """The texts in nested lists and dicts."""
    if isinstance(value, dict | list):
        return [text for one in (value.values() if isinstance(value, dict) else value) for text in walked(one)]
    return [value] if isinstance(value, str) and len(value) < 200 else []


def test_a_script_that_came_in_would_not_run(browser, written, tmp_path):
    """The page's policy knows its own two scripts and no other; without it the same page would be taken over."""
    html = written.read_text(encoding="utf-8")
    planted = html.replace("</main>", f"<script>{MARK}</script><img src='data:,' onerror=\"{MARK}\"></main>")
    assert planted != html
    policy = re.search(r"<meta http-equiv=.Content-Security-Policy.[^>]*>", planted).group()
    assert policy.count("'sha256-") == 2 and "script-src 'sha256-" in policy and "'unsafe-inline'; img" in policy
    titles = {}
    for name, text in (("with", planted), ("without", planted.replace(policy, ""))):
        (tmp_path / f"{name}.html").write_text(text, encoding="utf-8")
        page = browser.new_page()
        page.goto((tmp_path / f"{name}.html").as_uri())
        page.wait_for_selector("#rdm .nsewdrag")
        page.wait_for_timeout(200)
        assert page.evaluate(FOREIGN) == ["IMG onerror"]  # by which it would be seen above
        titles[name] = page.title()
        page.close()
    assert titles == {"with": "synthetic · brainrdl report", "without": "hostile"}


@pytest.mark.parametrize("kind", ["task", "brain"])
def test_the_markdown_of_a_report_holds_no_html_and_no_link_to_elsewhere(kind, poisoned):
    text = (poisoned[kind].parent / "results.md").read_text(encoding="utf-8")
    assert "&lt;" in text or "&#40;" in text
    assert re.findall(r"<[a-zA-Z/!?]|\]\((?![\w.-]+\))", text) == []
