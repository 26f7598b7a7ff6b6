"""Stimuli of brain data: their ids, what is known of them, their images."""

import numpy as np
import pytest
from PIL import Image

from brainrdl.data.matlab_stimuli import unpack_stimuli
from brainrdl.data.stimulus_set import StimulusFiles, read_stimulus_set, read_stimulus_table, read_text_table


def write_table(folder, text="stimulus\tcategory\nb\tface\na\t1\n", name="stimuli.tsv"):
    (folder / name).write_text(text, "utf-8")


def test_a_table_names_stimuli_and_images(tmp_path):
    write_table(tmp_path)
    for name, colour in (("b", 255), ("a", 51)):
        Image.new("RGB", (6, 4), (colour, 0, 0)).save(tmp_path / f"{name}.png")
    settings = StimulusFiles(table="stimuli.tsv", file="{stimulus}.png", size=(4, 6))
    images, table = read_stimulus_set(settings, tmp_path, "own")
    assert images.ids == ("b", "a") and table.loc["a", "category"] == "1"
    stimuli = images.read()
    assert stimuli.images.shape == (2, 3, 4, 6) and stimuli.images[:, 0, 0, 0].tolist() == pytest.approx([1, 0.2])
    assert stimuli.labels is None


def test_ids_may_be_counted_and_take_what_is_known_from_another_table(tmp_path):
    write_table(tmp_path, "stimulus,category\ns02,face\ns01,house\ns03,shoe\n", "other.csv")
    table = read_stimulus_table(StimulusFiles(ids="s{number:02d}", n=2, table="other.csv"), tmp_path, "own")
    assert table.index.tolist() == ["s01", "s02"] and table["category"].tolist() == ["house", "face"]
    assert table["stimulus"].tolist() == ["s01", "s02"]
    assert read_stimulus_table(StimulusFiles(ids="{number}", n=2), tmp_path, "own").index.tolist() == ["1", "2"]
    for number in (1, 2):
        Image.new("L", (4, 4)).save(tmp_path / f"image_{number:02d}.png")
    settings = StimulusFiles(ids="s{number:02d}", n=2, file="image_{number:02d}.png")
    assert [file.name for file in read_stimulus_set(settings, tmp_path, "own").images.files] == [
        "image_01.png",
        "image_02.png",
    ]


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(
        ValueError, match=r"own: no stimulus table .*stimuli.tsv; fetch its data set, or correct stimuli.table"
    ):
        read_stimulus_table(StimulusFiles(table="stimuli.tsv"), tmp_path, "own")
    for text, message in (
        ("name\na\n", "the column 'stimulus' is missing; it has: name"),
        ("stimulus\na\nb\na\n", "stimuli.tsv: .*'a'"),
        ("", "stimuli.tsv: expected a table with tabs between its columns"),
        ("stimulus\tcategory\n", "stimuli.tsv: it lists no stimulus; expected a row a stimulus"),
        ("stimulus\tcategory\na\t1\n\t2\n", "stimuli.tsv: line 3 has no stimulus; give it an id"),
        ("stimulus,category\na,1\n", "expected a table with tabs between its columns, got commas"),
        ("stimulus\tcategory\na\t1\t\nb\t2\t\n", "its rows have more columns than its heading; take tabs too many"),
    ):
        write_table(tmp_path, text)
        with pytest.raises(ValueError, match=message):
            read_stimulus_table(StimulusFiles(table="stimuli.tsv"), tmp_path, "own")
    write_table(tmp_path)
    with pytest.raises(ValueError, match=r"own: the spec names no image files; set stimuli.file"):
        read_stimulus_set(StimulusFiles(table="stimuli.tsv"), tmp_path, "own")
    with pytest.raises(
        ValueError, match=r"names what is no column of the stimuli's table \('kind'\); it has: stimulus, category"
    ):
        read_stimulus_set(StimulusFiles(table="stimuli.tsv", file="{kind}.png"), tmp_path, "own")
    with pytest.raises(ValueError, match=r"names what is no column .* \('stimulus.name'\); it has"):
        read_stimulus_set(StimulusFiles(table="stimuli.tsv", file="{stimulus.name}.png"), tmp_path, "own")
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"own: 1 of 2 stimuli have no image file, the first is 'b' \(.*b.png\)"):
        read_stimulus_set(StimulusFiles(table="stimuli.tsv", file="{stimulus}.png"), tmp_path, "own")


def test_wrong_lists_of_ids_are_told(tmp_path):
    write_table(tmp_path)
    for given in ({}, {"ids": "s{number}"}, {"n": 3}):
        with pytest.raises(ValueError, match="expected a table of the stimuli, or both ids and n"):
            StimulusFiles(**given)
    with pytest.raises(ValueError, match=r"own: stimuli.ids 's\{k\}' is no pattern of a number"):
        read_stimulus_table(StimulusFiles(ids="s{k}", n=2), tmp_path, "own")
    with pytest.raises(ValueError, match=r"own: stimuli.ids.*'s'"):
        read_stimulus_table(StimulusFiles(ids="s", n=2), tmp_path, "own")
    with pytest.raises(ValueError, match=r"stimuli.tsv: 2 of 2 ids are missing, first 's1'"):
        read_stimulus_table(StimulusFiles(ids="s{number}", n=2, table="stimuli.tsv"), tmp_path, "own")


def test_images_and_categories_come_out_of_the_published_matlab_file(tmp_path):
    from scipy.io import savemat

    images = np.random.default_rng(0).integers(0, 256, size=(2, 5, 5, 3), dtype=np.uint8)
    names = ("category", "human", "face", "animal", "natural", "image")
    stimuli = np.empty((1, 2), dtype=[(name, object) for name in names])  # a MATLAB struct array
    for k, category in enumerate(("human face", "tool")):
        stimuli[0, k] = (category, 1, 0, 1, 1, images[k])
    savemat(tmp_path / "published.mat", {"stimuli_92objs": stimuli, "other": 1})
    unpack_stimuli(tmp_path / "published.mat", tmp_path)
    table = read_stimulus_table(StimulusFiles(table="stimuli.tsv"), tmp_path, "own")
    assert table.index.tolist() == ["stim01", "stim02"] and table["category"].tolist() == ["human face", "tool"]
    assert table["animal"].tolist() == ["1", "1"]
    for image, file in zip(images, table["file"], strict=True):
        assert np.array_equal(np.asarray(Image.open(tmp_path / file)), image)
    (tmp_path / "stimuli.tsv").write_text("my own\n")
    (tmp_path / "stimuli" / "stim02.png").unlink()
    unpack_stimuli(tmp_path / "published.mat", tmp_path)
    assert (tmp_path / "stimuli.tsv").read_text() == "my own\n"  # what is there is left as it is
    assert np.array_equal(np.asarray(Image.open(tmp_path / "stimuli" / "stim02.png")), images[1])
    savemat(tmp_path / "other.mat", {"other": 1})
    (tmp_path / "broken.mat").write_bytes(b"MATLAB 5.0")
    for name in ("other.mat", "broken.mat", "gone.mat"):
        with pytest.raises(ValueError, match=f"{name}: expected a MATLAB file with stimuli_92objs"):
            unpack_stimuli(tmp_path / name, tmp_path)


def test_a_table_that_would_be_read_as_another_is_refused(tmp_path):
    """pandas would cut a cell at a byte 0, and give the second of two columns of one name another."""
    file = tmp_path / "stimuli.tsv"
    file.write_bytes(b"stimulus\tkind\na\0b\tcat\n")
    with pytest.raises(
        ValueError, match=r"stimuli.tsv: expected a table of text in UTF-8, got a byte 0; write it again"
    ):
        read_text_table(file)
    file.write_text("stimulus\tkind\tkind\na\tcat\tdog\n")
    with pytest.raises(ValueError, match=r"stimuli.tsv: the column 'kind' stands twice; name or leave out the second"):
        read_text_table(file)


def test_sizes_and_numbers_have_limits():
    for given, message in (
        ({"table": "t.tsv", "size": (8, 5000)}, "less than or equal to 4096"),
        ({"ids": "s{number}", "n": 10**7}, "less than or equal to 1000000"),
    ):
        with pytest.raises(ValueError, match=message):
            StimulusFiles(**given)
