"""Patterns kept by stimulus id: nothing is computed twice, and nothing wrong is taken for right."""

import copy
import json
import subprocess
import sys
from functools import partial
from random import Random

import pytest
import torch
from torch import nn

from brainrdl.models import Preprocessing
from brainrdl.pairs import all_pairs
from brainrdl.sources import NetworkTeacher
from brainrdl.sources.cache import PatternCache, image_checksums
from brainrdl.stimuli import Stimuli


@pytest.fixture
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 4))


@pytest.fixture
def seen(net):
    counts = []
    net.register_forward_pre_hook(lambda module, inputs: counts.append(len(inputs[0])))
    return counts


@pytest.fixture
def stimuli():
    generator = torch.Generator().manual_seed(1)
    return Stimuli(torch.rand(300, 1, 6, 6, generator=generator), tuple(f"image-{k}" for k in range(300)))


def batch(stimuli, rows):
    return stimuli.subset(torch.tensor(list(rows)))


def expected(net, stimuli):
    return nn.Sequential(*net)(stimuli.images).detach()  # without the hook that counts


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    return "memory" if request.param == "memory" else tmp_path / "cache"


def test_each_stimulus_is_computed_once(net, seen, stimuli, place):
    teacher = NetworkTeacher(net, ["1", "3"], cache=place)
    # Grows past the first capacity; batches overlap and come in another order.
    for rows in (range(200), range(150, 300), range(299, -1, -1), [5, 280, 17]):
        asked = batch(stimuli, rows)
        found = teacher.patterns(asked)
        torch.testing.assert_close(found["3"], expected(net, asked), rtol=1e-4, atol=1e-6)
        assert found["1"].shape == (len(asked.ids), 6)
    assert seen == [200, 100]


def test_only_what_is_in_the_pairs_is_kept(net, seen, stimuli, place):
    teacher = NetworkTeacher(net, ["1"], cache=place)
    few = all_pairs(4)
    teacher.targets(batch(stimuli, range(10)), few)
    teacher.targets(batch(stimuli, [2, 3, 4, 5]), few)
    assert seen == [4, 2]


def test_a_second_run_computes_nothing(net, seen, stimuli, tmp_path):
    first = NetworkTeacher(net, ["1"], "correlation", cache=tmp_path)
    before = first.targets(stimuli, all_pairs(300))["1"].values
    del first
    second = NetworkTeacher(copy.deepcopy(net), ["1"], "correlation", cache=tmp_path)
    after = second.targets(batch(stimuli, range(299, -1, -1)), all_pairs(300))["1"].values
    assert seen == [300]
    torch.testing.assert_close(before.sort().values, after.sort().values, rtol=1e-4, atol=1e-6)
    second.patterns(Stimuli(torch.rand(1, 1, 6, 6), ("new",)))
    assert seen == [300, 1]


def test_another_image_under_a_known_id(net, stimuli, place):
    teacher = NetworkTeacher(net, ["1"], cache=place)
    asked = batch(stimuli, range(20))
    teacher.patterns(asked)
    flipped = asked._replace(images=asked.images.flip(-1))
    with pytest.raises(ValueError, match=r"stimulus 'image-0' has another image .* augmentation changes .* without a"):
        teacher.patterns(flipped)


def test_the_same_id_twice_in_one_batch(net, stimuli, tmp_path):
    twice = batch(stimuli, [0, 0, 1])
    cache = PatternCache(tmp_path)
    cache.fetch(twice, lambda s: {"out": expected(net, s)})
    cache.fetch(batch(stimuli, [2]), lambda s: {"out": expected(net, s)})
    for again in (cache, PatternCache(tmp_path)):
        found = again.fetch(batch(stimuli, [0, 1, 2]), lambda s: pytest.fail("computed again"))
        torch.testing.assert_close(found["out"], expected(net, batch(stimuli, [0, 1, 2])))
    with pytest.raises(ValueError, match="stimulus 'new' has another image"):
        cache.fetch(Stimuli(stimuli.images[:2], ("new", "new")), lambda s: {"out": expected(net, s)})


def test_new_weights_are_other_patterns(net, stimuli, place):
    teacher = NetworkTeacher(net, ["3"], cache=place)
    asked = batch(stimuli, range(8))
    teacher.patterns(asked)
    with torch.no_grad():
        net[1].weight.mul_(-1)
    torch.testing.assert_close(teacher.patterns(asked)["3"], expected(net, asked))
    with torch.no_grad():
        net[1].weight.mul_(-1)
    torch.testing.assert_close(teacher.patterns(asked)["3"], expected(net, asked))


def test_fingerprint(net):
    same = NetworkTeacher(net, ["1"]).fingerprint()
    assert NetworkTeacher(copy.deepcopy(net), ["1"], "cosine").fingerprint() == same
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[3].bias[0] += 1e-6
    others = [
        NetworkTeacher(other, ["1"]),
        NetworkTeacher(net, ["3"]),
        NetworkTeacher(net, ["1"], dtype=torch.bfloat16),
        NetworkTeacher(net, ["1"], preprocess=Preprocessing(global_contrast=True)),
        NetworkTeacher(net, ["1"], preprocess=Preprocessing(mean=[0.5])),
        NetworkTeacher(net, ["1"], preprocess=torch.sqrt),
        NetworkTeacher(nn.Sequential(net[0], net[1], nn.Tanh(), net[3]), ["1"]),
    ]
    assert len({same, *(teacher.fingerprint() for teacher in others)}) == 1 + len(others)


def test_a_preprocessing_that_does_not_say_what_it_does(net, tmp_path):
    for preprocess in (lambda images: images * 2, partial(torch.mul, other=2)):
        NetworkTeacher(net, ["1"], preprocess=preprocess, cache="memory")
        with pytest.raises(
            ValueError, match=r"a cache on disk must tell .* give an nn.Module or a function of a module"
        ):
            NetworkTeacher(net, ["1"], preprocess=preprocess, cache=tmp_path)


def only(folder):
    (inside,) = folder.iterdir()
    return inside


def test_a_torn_line_costs_one_stimulus(net, seen, stimuli, tmp_path):
    teacher = NetworkTeacher(net, ["3"], cache=tmp_path)
    teacher.patterns(batch(stimuli, range(10)))
    del teacher
    index = only(tmp_path) / "index.jsonl"
    index.write_text(index.read_text()[:-9])
    for _ in range(2):
        teacher = NetworkTeacher(net, ["3"], cache=tmp_path)
        found = teacher.patterns(batch(stimuli, range(12)))["3"]
        torch.testing.assert_close(found, expected(net, batch(stimuli, range(12))))
        del teacher
    assert seen == [10, 3]
    assert len(index.read_text().splitlines()) == 12


def shorten(folder):
    (folder / "0.f32").write_bytes(b"1234")


def scribble(folder):
    index = folder / "index.jsonl"
    index.write_text("?\n" + index.read_text())


def repeat(folder):
    index = folder / "index.jsonl"
    index.write_text(index.read_text() + index.read_text().splitlines(keepends=True)[0])


def forget_layer(folder):
    (folder / "0.json").write_text(json.dumps({"layer": "1"}))


@pytest.mark.parametrize("damage", [shorten, scribble, repeat, forget_layer])
def test_damage(net, stimuli, tmp_path, damage):
    teacher = NetworkTeacher(net, ["3"], cache=tmp_path)
    teacher.patterns(batch(stimuli, range(10)))
    del teacher
    damage(only(tmp_path))
    with pytest.raises(ValueError, match=r"the pattern cache .* is damaged; delete it"):
        NetworkTeacher(net, ["3"], cache=tmp_path).patterns(batch(stimuli, range(10)))


def test_any_changed_bit_of_a_kept_pattern_or_of_the_index_is_told(net, stimuli, tmp_path):
    whole = NetworkTeacher(net, ["1", "3"], cache=tmp_path)
    whole.patterns(batch(stimuli, range(10)))
    folder, random = only(tmp_path), Random(0)
    names = [name for name in ("0.f32", "1.f32", "0.json", "index.jsonl") for _ in range(12)]
    for name in names:
        before = (folder / name).read_bytes()
        changed = bytearray(before)
        # A new line's bit at the end would be a torn line, which costs one stimulus.
        changed[random.randrange(len(changed) - 1)] ^= 1 << random.randrange(8)
        (folder / name).write_bytes(changed)
        with pytest.raises(ValueError, match=r"the pattern cache .* is damaged.*; delete it"):
            NetworkTeacher(net, ["1", "3"], cache=tmp_path).patterns(batch(stimuli, range(10)))
        (folder / name).write_bytes(before)
    for name in ("0.f32", "1.json"):
        before = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(ValueError, match=r"the pattern cache .* is damaged; delete it"):
            NetworkTeacher(net, ["1", "3"], cache=tmp_path).patterns(batch(stimuli, range(10)))
        (folder / name).write_bytes(before)
    (folder / "1.f32").write_bytes((folder / "0.f32").read_bytes())
    with pytest.raises(ValueError, match=r"the pattern cache .* is damaged \(patterns of '3'\); delete it"):
        NetworkTeacher(net, ["1", "3"], cache=tmp_path).patterns(batch(stimuli, range(10)))


def test_a_row_is_compared_once_and_only_where_it_is_read(net, stimuli, tmp_path):
    NetworkTeacher(net, ["1", "3"], cache=tmp_path).patterns(batch(stimuli, range(10)))
    data = only(tmp_path) / "0.f32"
    changed = bytearray(data.read_bytes())
    changed[9 * 4 * 6] ^= 1  # of the last stimulus
    reader = NetworkTeacher(net, ["1", "3"], cache=tmp_path)
    reader.patterns(batch(stimuli, [9]))
    data.write_bytes(changed)
    fresh = NetworkTeacher(net, ["1", "3"], cache=tmp_path)
    fresh.patterns(batch(stimuli, range(9)))
    with pytest.raises(ValueError, match="patterns of '1'"):
        fresh.patterns(batch(stimuli, [9]))
    reader.patterns(batch(stimuli, [9]))  # has read it, and does not pay again


def test_a_folder_of_an_older_version_is_read_and_grows(net, seen, stimuli, tmp_path):
    NetworkTeacher(net, ["3"], cache=tmp_path).patterns(batch(stimuli, range(10)))
    folder = only(tmp_path)
    lines = [json.loads(line)[:2] for line in (folder / "index.jsonl").read_text().splitlines()]
    (folder / "index.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "0.json").write_text(json.dumps({"layer": "3", "shape": [4]}))
    described = json.loads((folder / "1.json").read_text())
    (folder / "1.json").write_text(json.dumps({"layer": described["layer"], "shape": described["shape"]}))
    for rows in (range(10), range(5, 15), range(15)):
        found = NetworkTeacher(net, ["3"], cache=tmp_path).patterns(batch(stimuli, rows))["3"]
        torch.testing.assert_close(found, expected(net, batch(stimuli, rows)), rtol=1e-4, atol=1e-6)
    assert seen[:2] == [10, 5]
    lengths = [len(json.loads(line)) for line in (folder / "index.jsonl").read_text().splitlines()]
    assert lengths == [2] * 10 + [4] * 5


def test_a_killed_writer_leaves_no_damage(net, stimuli, tmp_path):
    NetworkTeacher(net, ["3"], cache=tmp_path).patterns(batch(stimuli, range(4)))
    (only(tmp_path) / ".0.99999999.draft.json").write_text('{"la')
    found = NetworkTeacher(net, ["3"], cache=tmp_path).patterns(batch(stimuli, range(4)))["3"]
    torch.testing.assert_close(found, expected(net, batch(stimuli, range(4))), rtol=1e-4, atol=1e-6)


def test_teachers_share_a_folder(net, seen, stimuli, tmp_path):
    first, second = (NetworkTeacher(copy.deepcopy(net), ["3"], cache=tmp_path) for _ in range(2))
    first.patterns(batch(stimuli, range(20)))
    second.patterns(batch(stimuli, range(10, 40)))
    # What the other has come to know since is found, whoever wrote it and however long the files have grown.
    first.patterns(batch(stimuli, range(300)))
    assert seen == [20, 20, 260]
    found = second.patterns(batch(stimuli, range(299, -1, -1)))["3"]
    assert seen == [20, 20, 260]
    torch.testing.assert_close(found, expected(net, batch(stimuli, range(299, -1, -1))), rtol=1e-4, atol=1e-6)
    assert_each_kept_once(only(tmp_path), 300)


def test_two_that_compute_the_same_at_the_same_time(net, stimuli, tmp_path):
    first, second = PatternCache(tmp_path), PatternCache(tmp_path)

    def while_the_other_does(asked):
        second.fetch(batch(stimuli, range(5, 15)), lambda s: {"out": expected(net, s)})
        return {"out": expected(net, asked)}

    found = first.fetch(batch(stimuli, range(10)), while_the_other_does)["out"]
    torch.testing.assert_close(found, expected(net, batch(stimuli, range(10))))
    assert_each_kept_once(tmp_path, 15)

    def while_the_other_sees_another_image(asked):
        flipped = batch(stimuli, [20])._replace(images=stimuli.images[20:21].flip(-1))
        second.fetch(flipped, lambda s: {"out": expected(net, s)})
        return {"out": expected(net, asked)}

    with pytest.raises(ValueError, match="stimulus 'image-20' has another image than when its patterns were cached"):
        first.fetch(batch(stimuli, [20]), while_the_other_sees_another_image)


def assert_each_kept_once(folder, n_stimuli):
    names = [json.loads(line)[0] for line in (folder / "index.jsonl").read_text().splitlines()]
    assert len(names) == len(set(names)) == n_stimuli


# Each process goes through the images in an order of its own, some at a time.
SHARE = """
import sys
import torch
from torch import nn
from brainrdl.sources import NetworkTeacher
from brainrdl.stimuli import Stimuli

folder, seed = sys.argv[1], int(sys.argv[2])
torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.ReLU(), nn.Linear(6, 4))
n_seen = []
net.register_forward_pre_hook(lambda module, inputs: n_seen.append(len(inputs[0])))
images = torch.rand(300, 1, 6, 6, generator=torch.Generator().manual_seed(1))
stimuli = Stimuli(images, tuple(f"image-{k}" for k in range(300)))
teacher = NetworkTeacher(net, ["3"], cache=folder)
print("ready", flush=True)
input()
for rows in torch.randperm(300, generator=torch.Generator().manual_seed(seed)).split(7):
    asked = stimuli.subset(rows)
    found = teacher.patterns(asked)["3"]
    torch.testing.assert_close(found, net[3](net[2](net[1](asked.images.flatten(1)))), rtol=1e-4, atol=1e-6)
print(sum(n_seen))
"""


def test_processes_share_a_folder(net, stimuli, tmp_path):
    command = [sys.executable, "-c", SHARE, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*command, str(seed)], **pipes) for seed in (1, 2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    n_seen = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert_each_kept_once(only(tmp_path), 300)
    assert 300 <= sum(n_seen) < 600, "each finds what the other has computed"
    again = NetworkTeacher(net, ["3"], cache=tmp_path).patterns(stimuli)["3"]
    torch.testing.assert_close(again, expected(net, stimuli), rtol=1e-4, atol=1e-6)
    assert (only(tmp_path) / "0.f32").stat().st_size == 300 * 4 * 4, "and no row is kept twice"


def test_checksums_tell_images_apart(stimuli):
    images = stimuli.images
    changed = images.clone()
    changed[:, 0, 2, 3] += 1e-6
    swapped = images.clone()
    swapped[:, 0, 0, 0], swapped[:, 0, 0, 1] = images[:, 0, 0, 1], images[:, 0, 0, 0]
    for other in (changed, swapped, images.flip(-1), images.roll(1, 0)):
        assert all(a != b for a, b in zip(image_checksums(images), image_checksums(other), strict=True))
    assert image_checksums(images) == image_checksums(images.clone().to(memory_format=torch.channels_last))
    assert len(set(image_checksums(images))) == 300


def test_checksums_are_those_of_the_formula(stimuli):
    """What stands in a folder must be found again: Σ bits · (odd weights) in Python's integers, modulo 2⁶⁴."""
    images = torch.cat([stimuli.images[:3], -stimuli.images[:2] * 1e30, torch.zeros(1, 1, 6, 6)])
    for dtype in (torch.float32, torch.float64):
        for image, found in zip(images, image_checksums(images.to(dtype)), strict=True):
            bits = image.flatten().view(torch.int32).tolist()
            total = sum(b * ((k + 1) * 2654435761 | 1) for k, b in enumerate(bits)) % 2**64
            assert found % 2**64 == total


def test_a_kept_cache_is_read_by_several_at_a_time_and_never_written(net, seen, stimuli, tmp_path):
    whole = NetworkTeacher(net, ["1", "2"])
    cache = PatternCache(tmp_path / "kept")
    for start in range(0, 200, 50):
        cache.fetch(batch(stimuli, range(start, start + 50)), whole.patterns)
    files = {file: file.read_bytes() for file in sorted((tmp_path / "kept").iterdir())}
    readers = [NetworkTeacher(net, ["2"], cache=PatternCache(tmp_path / "kept", read_only=True)) for _ in range(2)]
    rows = batch(stimuli, [7, 150, 3])
    expected = NetworkTeacher(copy.deepcopy(net), ["2"]).patterns(rows)["2"]
    seen.clear()
    for reader in readers:
        patterns = reader.patterns(rows)
        assert set(patterns) == {"2", ""} and not seen
        torch.testing.assert_close(patterns["2"], expected)
    # What it does not hold, images or layers, is computed and not kept.
    readers[0].patterns(batch(stimuli, [0, 250]))
    other = NetworkTeacher(net, ["0"], cache=PatternCache(tmp_path / "kept", read_only=True))
    assert other.patterns(batch(stimuli, [0]))["0"].shape == (1, 36)
    assert seen == [2, 1]
    assert {file: file.read_bytes() for file in sorted((tmp_path / "kept").iterdir())} == files
    changed = rows._replace(images=rows.images + 1)
    with pytest.raises(ValueError, match="has another image than when its patterns were cached"):
        readers[1].patterns(changed)
