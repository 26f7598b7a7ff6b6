"""`brainrdl figure`: every kind from runs, RDMs of rsatoolbox, patterns from elsewhere and networks."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from rsatoolbox.data import Dataset
from rsatoolbox.rdm import RDMs, calc_rdm
from storage_runs import without_report
from typer.testing import CliRunner

from brainrdl.analysis.figures.style import WIDTHS
from brainrdl.cli import app
from brainrdl.rdms import join_rdms, load_rdms, save_rdms, select_rdms
from brainrdl.report.figure import KINDS
from brainrdl.report.figure_inputs import InputOptions, read_inputs
from brainrdl.report.figure_runs import short_names

NETWORK = {
    "network": "mnist_cnn",
    "arguments": {"image_size": 8, "kernel_size": 3, "padding": 1, "pools": [2, 2], "features": [4, 8]},
}
EXPERIMENT = {
    "name": "small",
    "data": {"spec": "digits", "train": 100, "validation": 0, "test": 200},
    "student": NETWORK,
    "teacher": {**NETWORK, "training": {"epochs": 1, "batch_size": 50, "clip": 2.0}},
    "training": {"epochs": 2, "batch_size": 50, "learning_rate": 0.05, "clip": 2.0},
    "methods": {"baseline": {}, "rdl": {"layers": {"pool1": "pool1", "fc": "fc"}, "pairs": 100, "alpha": 3.0}},
    "seeds": [0, 1],
    "analysis": {"layers": ["conv1", "fc"], "n_per_class": 3, "every": 1},
}
N_STIMULI, N_UNITS = 20, 30


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def drawn(*words, out):
    """Draw a figure; the picture as an array."""
    result = call("figure", *words, "--out", out)
    assert result.exit_code == 0, result.output
    assert str(out) in result.output
    return matplotlib.image.imread(out) if out.suffix == ".png" else None


def assert_refused(*words, out, match):
    result = call("figure", *words, "--out", out)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")
    assert match in result.stderr
    assert not out.exists()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of two methods."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    with without_report():
        result = call("run", folder / "small.yaml", "--out", folder / "run", "--accelerator", "cpu", "--jobs", "1")
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """What others wrote: RDMs computed by rsatoolbox alone, patterns with a list of their files, pictures, a table."""
    folder = tmp_path_factory.mktemp("foreign")
    generator = np.random.default_rng(0)
    ids = [f"img{k:02d}" for k in range(N_STIMULI)]
    patterns = generator.normal(size=(4, N_STIMULI, N_UNITS))
    descriptors = {"stimulus": ids, "group": ["animal", "tool"] * (N_STIMULI // 2)}
    vectors = [
        calc_rdm(Dataset(values, obs_descriptors=descriptors), method="correlation", descriptor="stimulus")
        for values in patterns
    ]
    rdms = RDMs(
        np.concatenate([rdm.dissimilarities for rdm in vectors]),
        "correlation",
        rdm_descriptors={"subject": ["s1", "s1", "s2", "s2"], "roi": ["V1", "IT"] * 2},
        pattern_descriptors=descriptors,
    )
    rdms.save(str(folder / "rsa.h5"), file_type="hdf5")
    np.save(folder / "features.npy", patterns[0].astype(np.float32))
    (folder / "file_names.txt").write_text("\n".join(f"{stimulus}.png" for stimulus in ids))
    np.save(folder / "layer5.npy", patterns[1].reshape(N_STIMULI, 5, 6))
    (folder / "ids.txt").write_text("\n".join(reversed(ids)))
    (folder / "images").mkdir()
    for k, stimulus in enumerate(ids):
        Image.new("RGB", (20, 20), (10 * k, 255 - 10 * k, 90)).save(folder / "images" / f"{stimulus}.png")
    table = pd.DataFrame({"stimulus": ids, "kind": ["face", "house"] * (N_STIMULI // 2)})
    table.to_csv(folder / "stimuli.tsv", sep="\t", index=False)
    return folder


# every kind, from a run


@pytest.mark.parametrize("kind", ["rdm", "mds", "curves", "training"])
@pytest.mark.parametrize("width", ["single", "double"])
def test_a_run_is_drawn_at_a_columns_width(run, kind, width, tmp_path):
    picture = drawn(kind, run, "--width", width, out=tmp_path / f"{kind}.png")
    assert picture.shape[1] <= int(300 * WIDTHS[width]) + 1
    assert picture[..., :3].std() > 0.02


@pytest.mark.parametrize("suffix", ["pdf", "svg", "png"])
def test_the_same_figure_twice_is_the_same_file(run, suffix, tmp_path):
    for name in ("one", "two"):
        drawn("mds", run, out=tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


def test_stimuli_are_drawn_with_the_pictures_that_a_run_keeps(run, tmp_path):
    chosen = ("--select", "network=rdl", "--select", "layer=fc")
    points = drawn("stimulus-mds", run, *chosen, out=tmp_path / "points.png")
    pictures = drawn("stimulus-mds", run, *chosen, "--images", "run", out=tmp_path / "pictures.png")
    dark = (pictures[..., :3].max(-1) < 0.1).mean()
    assert dark > 3 * (points[..., :3].max(-1) < 0.1).mean()  # the digits' ground


def test_curves_are_those_asked_for_agreement_among_them(run, tmp_path):
    drawn("curves", run, "--quantity", "agreement/fc", "--quantity", "rdl/fc", out=tmp_path / "curves.svg")
    text = (tmp_path / "curves.svg").read_text()
    assert "RDM agreement" in text and "rdl/fc" in text and "Test error" not in text
    assert_refused("curves", run, "--quantity", "speed", out=tmp_path / "no.png", match="speed")


def test_several_runs_are_told_apart_by_their_folders(run, tmp_path):
    other = tmp_path / "again"
    other.symlink_to(run)
    for kind in ("mds", "curves"):
        drawn(kind, run, other, out=tmp_path / f"{kind}.svg")
        text = (tmp_path / f"{kind}.svg").read_text()
        assert "run: rdl" in text and "again: rdl" in text


# what inputs are


def test_of_a_run_the_first_seed_and_the_last_epoch_are_taken_unless_others_are_named(run):
    def chosen(**select):
        rdms = read_inputs([str(run)], InputOptions(select=select)).rdms
        return set(zip(rdms.rdm_descriptors["network"], map(int, rdms.rdm_descriptors["epoch"]), strict=True))

    assert chosen() == {("pixels", -1), ("labels", -1), ("baseline", 1), ("rdl", 1), ("teacher", -1)}
    assert chosen(seed=["1"]) == {("baseline", 1), ("rdl", 1)}
    assert chosen(seed=["0"], epoch=["0"], network=["rdl"]) == {("rdl", 0)}
    stored = load_rdms(run / "rdl" / "seed-1" / "rdms.h5")
    expected = stored.subset("epoch", 1).subset("layer", "fc").dissimilarities
    found = read_inputs([str(run)], InputOptions(select={"seed": ["1"], "network": ["rdl"], "layer": ["fc"]}))
    np.testing.assert_array_equal(found.rdms.dissimilarities, expected)


def test_rdms_of_rsatoolbox_alone_go_through_every_kind_that_they_can(foreign, tmp_path):
    drawn("rdm", foreign / "rsa.h5", "--rows", "subject", "--columns", "roi", out=tmp_path / "grid.png")
    drawn("rdm", foreign / "rsa.h5", "--category", "group", "--scale", "raw", "--shared", out=tmp_path / "raw.svg")
    assert "animal" in (tmp_path / "raw.svg").read_text()
    drawn("mds", foreign / "rsa.h5", "--colour-by", "roi", "--shape-by", "subject", out=tmp_path / "mds.svg")
    assert "IT" in (tmp_path / "mds.svg").read_text()
    one = ("--select", "subject=s1", "--select", "roi=IT")
    drawn("rdm", foreign / "rsa.h5", *one, "--images", foreign / "images", out=tmp_path / "rdm.png")
    table = ("--categories", foreign / "stimuli.tsv", "--category", "kind")
    drawn("stimulus-mds", foreign / "rsa.h5", *one, *table, out=tmp_path / "stimuli.svg")
    assert "house" in (tmp_path / "stimuli.svg").read_text()


def test_patterns_are_read_with_the_list_of_files_beside_them_or_one_that_is_given(foreign):
    beside = read_inputs([str(foreign / "features.npy")], InputOptions(patterns=True)).rdms
    assert list(beside.pattern_descriptors["stimulus"])[:2] == ["img00.png", "img01.png"]
    values = np.load(foreign / "features.npy")
    expected = calc_rdm(Dataset(values.astype(float)), method="correlation").dissimilarities
    np.testing.assert_allclose(beside.dissimilarities, expected, atol=1e-6)
    given = InputOptions(patterns=True, ids=foreign / "ids.txt", dissimilarity="euclidean")
    other = read_inputs([str(foreign / "layer5.npy")], given).rdms
    assert other.pattern_descriptors["stimulus"][0] == f"img{N_STIMULI - 1}"
    expected = calc_rdm(Dataset(np.load(foreign / "layer5.npy").reshape(N_STIMULI, -1)), method="euclidean")
    np.testing.assert_allclose(other.dissimilarities, expected.dissimilarities, atol=1e-6)


def test_layers_of_a_model_agree_with_regions_of_brains(foreign, tmp_path):
    arguments = ("--patterns", "--ids", foreign / "ids.txt", "--brain", foreign / "rsa.h5", "--comparison", "corr")
    drawn("agreement", foreign / "layer5.npy", *arguments, out=tmp_path / "agreement.svg")
    text = (tmp_path / "agreement.svg").read_text()
    assert "V1" in text and "IT" in text and "Pearson" in text
    assert_refused("agreement", foreign / "rsa.h5", out=tmp_path / "no.png", match="expected --brain FILE")


def test_a_network_file_is_an_input(foreign, tmp_path):
    spec = {**NETWORK, "layers": ["conv1", "softmax"], "data": {"spec": "digits", "train": 100, "validation": 0}}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({**spec, "n_per_class": 2}))
    rdms = read_inputs([str(file)], InputOptions()).rdms
    assert rdms.n_cond == 20
    assert list(rdms.rdm_descriptors["network"]) == ["mine", "mine"]
    assert list(rdms.rdm_descriptors["layer"]) == ["conv1", "softmax"]
    drawn("rdm", file, out=tmp_path / "mine.png")
    file.write_text(yaml.safe_dump({**spec, "layers": ["conv9"]}))
    assert_refused("rdm", file, out=tmp_path / "no.png", match="layer 'conv9' is not in the")
    file.write_text(yaml.safe_dump({**NETWORK, "layers": ["conv1"]}))
    assert_refused(
        "rdm", file, out=tmp_path / "no.png", match="the network is shown either data (a data set) or stimuli"
    )


def test_a_network_is_shown_the_stimuli_of_a_brain_data_spec(real_data, tmp_path):
    real_data("kriegeskorte2008")
    file = tmp_path / "cnn.yaml"
    preprocess = {"size": [64, 64], "channels": 3}
    cnn = {"network": "small_cnn", "arguments": {"image_size": 64, "features": [4, 4, 4], "n_classes": 6}}
    file.write_text(json.dumps({**cnn, "preprocess": preprocess, "layers": [""], "stimuli": "kriegeskorte2008"}))
    rdms, _, category, *_ = read_inputs([str(file)], InputOptions())
    assert (rdms.n_cond, category) == (92, "category")


# what does not go together


def test_rdms_of_several_origins_are_matched_by_id_and_what_is_left_out_is_told(foreign, tmp_path):
    some = load_rdms(foreign / "rsa.h5").subset("roi", "IT").subset("subject", "s2")
    fewer = some.subset_pattern("stimulus", [f"img{k:02d}" for k in range(15)])
    save_rdms(fewer, tmp_path / "fewer.h5")
    result = call("figure", "mds", foreign / "rsa.h5", tmp_path / "fewer.h5", "--out", tmp_path / "mds.svg")
    assert result.exit_code == 0, result.output
    assert "note: " in result.stderr and "rsa.h5: 5 of 20 stimuli are left out" in result.stderr
    joined = read_inputs([str(foreign / "rsa.h5"), str(tmp_path / "fewer.h5")], InputOptions()).rdms
    assert list(joined.rdm_descriptors["network"]) == ["rsa"] * 4 + ["fewer"]
    assert list(joined.rdm_descriptors["roi"]) == ["V1", "IT", "V1", "IT", "IT"]
    np.testing.assert_allclose(joined.dissimilarities[3], joined.dissimilarities[4])


def test_what_is_not_there_is_told(foreign, run, tmp_path):
    out = tmp_path / "no.png"
    rsa = foreign / "rsa.h5"
    assert_refused("pie", rsa, out=out, match=f"unknown kind of figure 'pie'; expected one of {', '.join(KINDS)}")
    assert_refused("rdm", rsa, out=tmp_path / "no.gif", match="expected a name that ends with .png, .pdf, .svg")
    assert_refused("rdm", rsa, "--width", "triple", out=out, match="unknown figure width 'triple'")
    assert_refused("rdm", tmp_path / "none.h5", out=out, match="is not there; give the folder of a run")
    assert_refused("rdm", tmp_path, out=out, match="is a folder that holds no run")
    assert_refused("rdm", rsa, "--select", "roi=V4", out=out, match="no RDM has roi 'V4'; there are: V1, IT")
    assert_refused("rdm", rsa, "--select", "area=V1", out=out, match="have no descriptor 'area'; they have:")
    assert_refused("rdm", rsa, "--select", "V1", out=out, match="expected descriptor=value[,value]")
    assert_refused("rdm", rsa, "--category", "colour", out=out, match="have no pattern descriptor 'colour'; they have:")
    assert_refused("rdm", rsa, "--stimulus", "name", out=out, match="have no pattern descriptor 'name'; they have:")
    assert_refused("rdm", rsa, "--images", "run", out=out, match="no input is a run that keeps pictures")
    assert_refused(
        "rdm", rsa, "--categories", foreign / "stimuli.tsv", out=out, match="the column 'category' is missing"
    )
    for table, why in ((tmp_path, "Is a directory"), (tmp_path / "none.tsv", "No such file or directory")):
        assert_refused("rdm", rsa, "--categories", table, out=out, match=f"{table}: cannot be opened ({why})")
    (tmp_path / "few.tsv").write_text("stimulus\tkind\nimg00\tface\nimg02\thouse\n")
    few = ("--categories", tmp_path / "few.tsv", "--category", "kind")
    match = "few.tsv: 18 of 20 stimuli are not in it, the first is 'img01'; add them"
    assert_refused("rdm", rsa, *few, out=out, match=match)
    two = ("--target", "teacher", "--target", "rdl")
    assert_refused("training", run, *two, out=out, match="training: expected one --target, got teacher, rdl")
    assert_refused("mds", rsa, "--select", "subject=s1", "--select", "roi=V1", out=out, match="at least 2 RDMs")
    assert_refused("mds", rsa, "--colour-by", "area", out=out, match="'area'")
    assert_refused("stimulus-mds", rsa, out=out, match="one RDM")
    assert_refused("curves", rsa, out=out, match="is no run (experiment.yaml); curves are drawn of the folders of runs")
    assert_refused("rdm", foreign / "features.npy", out=out, match="features.npy")
    assert_refused("rdm", rsa, rsa, out=out, match="rsa.h5' is given twice; give each input once")
    assert_refused(
        "mds", rsa, "--target", "V4", out=out, match="no RDM is of the target 'V4'; of roi there are: V1, IT"
    )
    assert_refused("rdm", run, "--select", "seed=7", out=out, match="no RDM has seed '7'; there are: -1, 0")
    assert_refused(
        "rdm", run, "--select", "layer=", out=out, match="no RDM has layer ''; there are: pixels, labels, conv1"
    )


def test_options_of_other_kinds_are_refused(foreign, run, tmp_path):
    rsa, out = foreign / "rsa.h5", tmp_path / "no.png"
    assert_refused(
        "rdm", rsa, "--bootstrap", "5", out=out, match="--bootstrap does not go with 'rdm', which takes --select,"
    )
    assert_refused("mds", rsa, "--images", "x", out=out, match="--images does not go with 'mds'")
    assert_refused("stimulus-mds", rsa, "--shared", out=out, match="--shared does not go with 'stimulus-mds'")
    assert_refused(
        "curves", run, "--select", "network=rdl", out=out, match="'curves', which takes --quantity; leave it out"
    )
    assert_refused("training", run, "--brain", rsa, out=out, match="--brain does not go with 'training'")


def test_messages_speak_of_options(foreign, tmp_path):
    rsa, out = foreign / "rsa.h5", tmp_path / "no.png"
    assert_refused("stimulus-mds", rsa, out=out, match="choose one, e.g. --select roi=V1 --select subject=s1, average")
    assert_refused(
        "rdm", rsa, "--rows", "subject", out=out, match="they differ in roi; choose one, e.g. --select roi=IT"
    )
    assert_refused("mds", rsa, "--comparison", "bures", out=out, match="take --bootstrap 0 and")
    drawn("mds", rsa, "--comparison", "bures", "--bootstrap", "0", out=tmp_path / "bures.png")
    assert_refused("rdm", foreign / "layer5.npy", out=out, match="give --ids, their ids in the order of the rows")
    assert_refused("rdm", rsa, "--ids", foreign / "ids.txt", out=out, match="leave --ids out")


def test_what_cannot_be_written_is_told_by_its_own_name(foreign, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    result = call("figure", "rdm", foreign / "rsa.h5", "--out", tmp_path / "folder.png")
    assert result.exit_code == 2 and "folder.png: is a folder; give the name of a file" in result.stderr
    result = call("figure", "rdm", foreign / "rsa.h5", "--out", tmp_path / "file" / "rdm.png")
    assert result.exit_code == 1 and f"error: {tmp_path / 'file' / 'rdm.png'}: " in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]


def test_a_file_without_rdms_is_refused(tmp_path):
    RDMs(np.zeros((0, 6)), pattern_descriptors={"stimulus": list("abcd")}).save(str(tmp_path / "none.h5"), "hdf5")
    assert_refused(
        "rdm", tmp_path / "none.h5", out=tmp_path / "no.png", match="expected at least one RDM, got none over 4"
    )


def test_what_rdms_do_not_allow_is_told_with_their_file(tmp_path):
    np.save(tmp_path / "one.npy", 1 - np.eye(4))
    (tmp_path / "ids.txt").write_text("a\nb\nc\nd\n")
    words = ("mds", tmp_path / "one.npy", "--ids", tmp_path / "ids.txt")
    assert_refused(*words, out=tmp_path / "f.png", match="one.npy: expected at least 2 RDMs to compare, got 1")
    two = (tmp_path / "one.npy", tmp_path / "two.npy", "--ids", tmp_path / "ids.txt")
    np.save(tmp_path / "two.npy", 1 - np.eye(4))
    assert_refused("stimulus-mds", *two, out=tmp_path / "f.png", match="one.npy and 1 more: expected one RDM, got 2")


def test_rdms_without_ids_are_drawn_alone_and_not_beside_others(foreign, tmp_path):
    nameless = RDMs(np.random.default_rng(0).random((2, 190)), pattern_descriptors={"number": list(range(20))})
    nameless.save(str(tmp_path / "nameless.h5"), "hdf5")
    drawn("rdm", tmp_path / "nameless.h5", out=tmp_path / "rdm.png")
    match = "nameless.h5: its RDMs have no pattern descriptor 'stimulus'; they have: number; say by --stimulus"
    assert_refused("mds", tmp_path / "nameless.h5", foreign / "rsa.h5", out=tmp_path / "no.png", match=match)
    assert_refused(
        "mds", tmp_path / "nameless.h5", out=tmp_path / "no.png", match="no descriptor tells the 2 RDMs apart"
    )


def test_arrays_are_called_by_what_tells_their_paths_apart(foreign, tmp_path):
    files = [str(tmp_path / layer / "features.npy") for layer in ("conv1", "fc")]
    for file in map(Path, files):
        file.parent.mkdir()
        shutil.copy(foreign / "features.npy", file)
        shutil.copy(foreign / "file_names.txt", file.parent)
    rdms = read_inputs(files, InputOptions(patterns=True)).rdms
    assert list(rdms.rdm_descriptors["network"]) == ["conv1", "fc"]
    drawn("rdm", *files, "--patterns", out=tmp_path / "rdm.svg")
    text = (tmp_path / "rdm.svg").read_text()
    assert "conv1" in text and "fc" in text and "output" not in text
    assert short_names(["a/run", "b/run"]) == ["a", "b"]
    assert short_names(["a/b", "c/b/d"]) == ["b", "d"]
    (tmp_path / "x.h5").write_text("")
    (tmp_path / "x.npy").write_text("")
    assert short_names([str(tmp_path / "x.h5"), str(tmp_path / "x.npy")]) == ["x.h5", "x.npy"]


def test_patterns_stand_beside_rdms_whose_own_ids_and_measure_hold(foreign, tmp_path):
    options = InputOptions(patterns=True, ids=foreign / "ids.txt", dissimilarity="euclidean")
    rdms = read_inputs([str(foreign / "layer5.npy"), str(foreign / "rsa.h5")], options).rdms
    assert list(rdms.rdm_descriptors["dissimilarity_measure"]) == ["euclidean"] + ["correlation"] * 4
    own = load_rdms(foreign / "rsa.h5")
    k, m = (list(rdms.pattern_descriptors["stimulus"]).index(name) for name in ("img03", "img07"))
    assert rdms.get_matrices()[1][k, m] == own.get_matrices()[0][3, 7]


def test_what_is_not_layers_is_not_joined_as_layers_are(foreign, run, tmp_path):
    model = load_rdms(foreign / "rsa.h5").subset("subject", "s1")
    layers = RDMs(
        model.dissimilarities,
        rdm_descriptors={"layer": ["a", "b"]},
        pattern_descriptors={"stimulus": list(model.pattern_descriptors["stimulus"])},
    )
    save_rdms(layers, tmp_path / "model.h5")
    found = read_inputs([str(tmp_path / "model.h5"), str(foreign / "rsa.h5")], InputOptions())
    assert found.not_layers == ("rsa",)
    assert list(found.rdms.rdm_descriptors["layer"]) == ["a", "b", "V1 s1", "IT s1", "V1 s2", "IT s2"]
    drawn("mds", tmp_path / "model.h5", foreign / "rsa.h5", out=tmp_path / "mds.svg")
    assert "rsa (target)" in (tmp_path / "mds.svg").read_text()


def test_one_array_of_several_is_chosen_by_its_key(foreign, tmp_path):
    square = load_rdms(foreign / "rsa.h5").get_matrices()
    np.savez(tmp_path / "several.npz", first=square[0], second=square[1])
    ids = ("--ids", tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("\n".join(f"img{k:02d}" for k in range(N_STIMULI)))
    assert_refused(
        "rdm", tmp_path / "several.npz", *ids, out=tmp_path / "no.png", match="no --key was given; give one of"
    )
    drawn("rdm", tmp_path / "several.npz", *ids, "--key", "second", out=tmp_path / "rdm.png")


def test_rdms_of_one_measure_say_it_when_others_beside_them_are_of_another(run, tmp_path):
    drawn("rdm", run, out=tmp_path / "all.svg")
    assert "(euclidean)" not in (tmp_path / "all.svg").read_text()  # labels are not
    drawn("rdm", run, "--select", "network=rdl,teacher", out=tmp_path / "some.svg")
    assert "Dissimilarity (euclidean)" in (tmp_path / "some.svg").read_text()
    rdms = read_inputs([str(run)], InputOptions()).rdms
    assert "dissimilarity_measure" not in select_rdms(rdms, network="rdl").rdm_descriptors
    assert select_rdms(rdms, network=["pixels", "rdl"]).dissimilarity_measure == "euclidean"
    assert select_rdms(rdms, network=["labels", "rdl"]).dissimilarity_measure is None
    again = join_rdms([select_rdms(rdms, network="rdl"), select_rdms(rdms, network="labels")])
    measures = list(again.rdm_descriptors["dissimilarity_measure"])
    assert set(measures[:-1]) == {"euclidean"} and measures[-1] == "label"


def test_several_seeds_of_a_run_are_chosen_together(run):
    rdms = read_inputs([str(run)], InputOptions(select={"seed": ["0", "1"], "layer": ["fc"]})).rdms
    found = set(zip(rdms.rdm_descriptors["network"], map(int, rdms.rdm_descriptors["seed"]), strict=True))
    assert found == {("baseline", 0), ("rdl", 0), ("baseline", 1), ("rdl", 1)}
    assert set(map(int, rdms.rdm_descriptors["epoch"])) == {1}


def test_sessions_of_a_brain_are_averaged_and_that_is_said(foreign, tmp_path):
    brain = load_rdms(foreign / "rsa.h5")
    brain.rdm_descriptors["session"] = brain.rdm_descriptors.pop("roi")
    save_rdms(brain, tmp_path / "sessions.h5")
    one = ("--select", "subject=s1", "--select", "roi=V1")
    arguments = ("agreement", foreign / "rsa.h5", *one, "--comparison", "corr", "--brain")
    result = call("figure", *arguments, tmp_path / "sessions.h5", "--out", tmp_path / "agreement.svg")
    assert result.exit_code == 0, result.output
    assert "sessions.h5: mean over session of each subject" in result.stderr
    assert "n = 2" in (tmp_path / "agreement.svg").read_text()
    del brain.rdm_descriptors["subject"]
    save_rdms(brain, tmp_path / "nobody.h5")
    assert_refused(
        *arguments, tmp_path / "nobody.h5", out=tmp_path / "no.png", match="have no descriptor 'subject'; they have"
    )
    assert_refused(
        *arguments, foreign / "layer5.npy", out=tmp_path / "no.png", match="expected a file of RDMs with the desc"
    )


def test_a_run_without_any_rdms_is_told(run, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(run / "experiment.yaml", tmp_path / "run")
    for kind in ("training", "rdm"):
        assert_refused(kind, tmp_path / "run", out=tmp_path / "no.png", match="let `brainrdl run` ")
    match = "run' has no history.csv yet; let `brainrdl run` train an epoch"
    assert_refused("curves", tmp_path / "run", out=tmp_path / "no.png", match=match)


def test_undefined_rdms_are_named(foreign, tmp_path):
    rdms = load_rdms(foreign / "rsa.h5")
    rdms.dissimilarities[2] = np.nan
    save_rdms(rdms, tmp_path / "holes.h5")
    assert_refused(
        "rdm", tmp_path / "holes.h5", out=tmp_path / "no.png", match="RDM 2 (V1, s2) cannot be drawn: it is NaN"
    )
    result = call("figure", "mds", tmp_path / "holes.h5", "--out", tmp_path / "mds.png")
    assert result.exit_code == 0
    assert "left out: RDM 2 (roi 'V1', subject 's2') is NaN throughout" in result.stderr


def test_more_pictures_than_fit_are_refused(foreign, tmp_path):
    generator = np.random.default_rng(0)
    ids = [f"img{k:03d}" for k in range(300)]
    rdms = RDMs(generator.random((1, 300 * 299 // 2)), pattern_descriptors={"stimulus": ids})
    save_rdms(rdms, tmp_path / "many.h5")
    (tmp_path / "images").mkdir()
    for stimulus in ids:
        Image.new("RGB", (4, 4)).save(tmp_path / "images" / f"{stimulus}.png")
    images = ("--images", tmp_path / "images")
    assert_refused("rdm", tmp_path / "many.h5", *images, out=tmp_path / "no.png", match="300")


def test_a_run_that_is_not_finished_is_drawn_as_far_as_it_got_and_that_is_said(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    part = tmp_path / "run" / "rdl" / "seed-0"
    (part / "predictions.csv").unlink()
    marker = json.loads((part / "part.json").read_text())
    (part / "part.json").write_text(json.dumps({"finished": False, "settings": marker["settings"]}))
    result = call("figure", "rdm", tmp_path / "run", "--out", tmp_path / "rdm.svg")
    assert result.exit_code == 0, result.output
    assert "rdl (seed 0 is not finished)" in result.stderr
    assert "baseline" in (tmp_path / "rdm.svg").read_text()
    for kind in ("curves", "training"):
        result = call("figure", kind, tmp_path / "run", "--out", tmp_path / f"{kind}.svg")
        assert result.exit_code == 0, result.output
        assert "note: run: Not finished: rdl, seed 0." in result.stderr
        assert "rdl" in (tmp_path / f"{kind}.svg").read_text()
    (part / "rdms.h5").write_bytes((part / "rdms.h5").read_bytes()[:2000])  # of what is unfinished nothing is noted
    result = call("figure", "training", tmp_path / "run", "--out", tmp_path / "no.svg")
    assert result.exit_code == 2, result.output
    assert f"{part / 'rdms.h5'}: " in result.stderr and f"; delete the folder {part} and run the exp" in result.stderr


def test_without_an_input_nothing_is_read():
    with pytest.raises(ValueError, match="expected at least one input: the folder of a run, a file of RDMs or pat"):
        read_inputs([], InputOptions())
