"""report.html in a real browser: nothing is requested, nothing fails, and what one points at is what one sees."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pytest
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
