"""What SECURITY.md promises: no file, name or address that comes from elsewhere runs code here or leads out."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hostile_pickles import (
    PAYLOADS,
    STRANGE,
    as_npy,
    as_npz,
    as_pickle,
    as_torch_legacy,
    as_torch_tar,
    as_torch_zip,
    extension_code,
)
from PIL import Image
from typer.testing import CliRunner

import brainrdl
from brainrdl.cli import app
from brainrdl.data.image_folder import ImageFiles
from brainrdl.data.inside import filled
from brainrdl.data.readers import read_contents
from brainrdl.data.spec import load_spec
from brainrdl.data.stimulus_set import StimulusFiles, read_stimulus_set, read_stimulus_table
from brainrdl.data.thumbnails import load_thumbnails
from brainrdl.fmri.paths import fill, find_runs
from brainrdl.fmri.spec import load_brain_spec
from brainrdl.models import MnistCNN, build_network, load_weights
from brainrdl.rdms import load_features, load_rdms
from brainrdl.restricted_files import load_array, load_dict, load_npz
from brainrdl.settings import _Loader
from brainrdl.training.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]
PACKAGE = Path(brainrdl.__file__).parent

# No pickle runs code


def assert_harmless(read, path, folder):
    """Reading is refused as wrong input, and nothing in the file was done."""
    with extension_code(), pytest.raises(ValueError, match=path.name):
        read(path)
    assert not folder.exists()


IDS = [str(k) for k in range(3)]
READERS = {
    "dict": (load_dict, as_pickle, "a.pkl"),
    "dict in .npy": (load_dict, as_npy, "a.npy"),
    "array": (load_array, as_npy, "a.npy"),
    "array, mapped": (lambda path: load_array(path, mmap=True), as_npy, "a.npy"),
    "array that is none": (load_array, as_pickle, "a.npy"),
    "arrays": (load_npz, as_npz, "a.npz"),
    "RDMs": (lambda path: load_rdms(path, stimuli=IDS), as_npy, "a.npy"),
    "RDMs in .npz": (lambda path: load_rdms(path, stimuli=IDS), as_npz, "a.npz"),
    "RDMs that are a pickle": (lambda path: load_rdms(path, stimuli=IDS), as_pickle, "a.pkl"),
    "pictures": (lambda path: load_thumbnails(path, IDS), as_npz, "a.npz"),
    **{
        f"{what}, {kind}": (read, write, "a.pt")
        for what, read in {
            "weights": lambda path: load_weights(MnistCNN(), path),
            "features": lambda path: load_features(path, IDS),
            "checkpoint": load_checkpoint,
        }.items()
        for kind, write in {
            "zip": as_torch_zip,
            "legacy": as_torch_legacy,
            "tar": as_torch_tar,
            "pickle": as_pickle,
        }.items()
    },
    "weights that are no safetensors": (
        lambda path: load_weights(MnistCNN(), path), as_pickle, "a.safetensors"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PAYLOADS)
def test_the_payloads_are_dangerous_where_nothing_is_restricted(name, tmp_path):
    """Else the tests below would show nothing."""
    folder = tmp_path / "made"
    with extension_code(), suppress(TypeError, ValueError, OSError):  # of what was made of the call
        pickle.loads(PAYLOADS[name](str(folder)))
    assert folder.is_dir() or name == "of an admitted module"


@pytest.mark.parametrize("reader", READERS)
def test_no_pickle_in_a_file_runs_code(reader, tmp_path):
    read, write, name = READERS[reader]
    for payload in PAYLOADS.values():
        folder = tmp_path / "made"
        assert_harmless(read, write(tmp_path / name, payload(str(folder))), folder)
    for payload in STRANGE.values():
        assert_harmless(read, write(tmp_path / name, payload), tmp_path / "made")


def test_cifar_is_read_without_its_pickles_code(tmp_path, monkeypatch):
    """torchvision's own reader would run it where the checksums are right."""
    import torchvision.datasets

    folder, place = tmp_path / "made", tmp_path / "cifar-10-batches-py"
    place.mkdir()
    payload = PAYLOADS["in a dict"](str(folder))
    (place / "evil").write_bytes(payload)
    listed = [["evil", hashlib.md5(payload).hexdigest()]]
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(torchvision.datasets.CIFAR10, part, listed)
    with pytest.raises(ValueError, match=r"cifar10: not found in .*cifar-10-batches-py, or damaged"):
        read_contents(load_spec("cifar10"), tmp_path)
    assert not folder.exists()


def test_mnist_of_an_old_torchvision_is_read_without_its_pickles_code(tmp_path):
    folder, place = tmp_path / "made", tmp_path / "MNIST" / "processed"
    place.mkdir(parents=True)
    for name in ("training.pt", "test.pt"):
        as_torch_zip(place / name, PAYLOADS["global"](str(folder)))
    with pytest.raises(ValueError, match=r"mnist: not found in .*, or damaged"):
        read_contents(load_spec("mnist"), tmp_path)
    assert not folder.exists()


def test_weights_whose_places_are_their_own_are_refused(tmp_path):
    """A sparse tensor tells where its numbers belong, also outside of its memory."""
    state = MnistCNN().state_dict()
    state["readout.bias"] = state["readout.bias"].to_sparse()
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a.pt' hold something else than a state dict"):
        load_weights(MnistCNN(), tmp_path / "a.pt")


# What the code never calls

_ALWAYS = {
    "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "joblib.load",
    "pd.read_pickle", "pandas.read_pickle", "eval", "exec", "compile", "__import__", "os.system", "os.popen",
    "yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "shutil.unpack_archive",
    "tempfile.mktemp", "torch.hub.load", "torch.hub.load_state_dict_from_url", "torch.jit.load", "torch.package",
    "urllib.request.urlopen", "urllib.request.urlretrieve", "ssl._create_unverified_context", "runpy.run_path",
    "subprocess.getoutput", "subprocess.getstatusoutput", "np.fromregex", "torch.serialization.add_safe_globals",
    "dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads",
}  # fmt: skip
_NEEDS = {  # call -> (argument, the only value)
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.lib.format.read_array": ("allow_pickle", False),
    "Environment": ("autoescape", True),
}
_IMPORTERS = {"import_module", "importlib.import_module"}
_MAY_IMPORT = {"__init__.py", "models/lookup.py", "models/pretrained.py"}  # the last: one name, fixed


def forbidden(source: str, where: str) -> list[str]:
    """The calls in a module that may run what stands in a file or a name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal", "shelve", "dill"):
            found.append(f"{where}:{node.lineno} from {node.module} import")  # what it is called then is not known
        if not isinstance(node, ast.Call):
            continue
        name, at = ast.unparse(node.func), f"{where}:{node.lineno}"
        given = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
        if (
            name in _ALWAYS
            or name.endswith((".extractall", ".extract"))
            or given.get("shell")
            or given.get("verify") is False
        ):
            found.append(f"{at} {name}")
        if name in _NEEDS and given.get(_NEEDS[name][0]) is not _NEEDS[name][1]:
            found.append(f"{at} {name} without {_NEEDS[name][0]}={_NEEDS[name][1]}")
        if name == "yaml.load" and [ast.unparse(value) for value in node.args[1:]] != ["_Loader"]:
            found.append(f"{at} yaml.load with another loader")
        if name in _IMPORTERS and where not in _MAY_IMPORT:
            found.append(f"{at} {name}")
    return found


@pytest.mark.parametrize(
    "planted",
    [
        "pickle.loads(b'')", "torch.load(f)", "torch.load(f, weights_only=False)", "torch.load(f, weights_only=x)",
        "np.load(f)", "np.load(f, allow_pickle=True)", "yaml.load(t, yaml.Loader)", "yaml.load(t)", "eval(t)",
        "subprocess.run(t, shell=True)", "archive.extractall()", "import_module(t)", "os.system(t)",
        "from pickle import loads", "requests.get(u, verify=False)", "Environment(loader=x)", "pd.read_pickle(f)",
        "Environment(autoescape=False)",
    ],
)  # fmt: skip
def test_what_may_run_code_is_found_where_it_is_planted(planted):
    assert len(forbidden(planted, "data/x.py")) == 1


def test_no_call_may_run_what_stands_in_a_file():
    modules = sorted(PACKAGE.rglob("*.py"))
    assert len(modules) > 150
    found = [
        line for path in modules for line in forbidden(path.read_text("utf-8"), path.relative_to(PACKAGE).as_posix())
    ]
    assert found == []
    assert issubclass(_Loader, yaml.SafeLoader)
    tools = [*(ROOT / "docs").glob("*.py"), ROOT / ".ci" / "audit"]
    assert [line for path in tools for line in forbidden(path.read_text("utf-8"), "__init__.py")] == []


@pytest.mark.parametrize("text", ["!!python/object/apply:os.mkdir [{}]", "!!python/name:os.mkdir {}"])
def test_yaml_makes_no_objects(text, tmp_path):
    from brainrdl.settings import read_yaml

    folder = tmp_path / "made"
    (tmp_path / "a.yaml").write_text("a: " + text.format(folder))
    with pytest.raises(ValueError, match=r"a.yaml: not valid YAML in line 1: could not determine a constructor"):
        read_yaml(tmp_path / "a.yaml")
    changed = CliRunner().invoke(app, ["run", "demo", "--set", f"name={text.format(folder)}", "--out", str(tmp_path)])
    assert changed.exit_code == 2 and not folder.exists()


# Code of one's own only where it is allowed

DIGITS = {"spec": "digits", "train": 100, "validation": 0, "test": 100}
OWN = {"network": "evil.nets:make"}
TASK = {
    "name": "x",
    "data": DIGITS,
    "student": {"network": "small_cnn", "arguments": {"image_size": 8, "channels": 1}},
    "training": {"epochs": 1},
    "methods": {"baseline": None},
    "seeds": [0],
    "analysis": {"layers": [""], "n_per_class": 2, "every": 0},
}
TAUGHT = {**TASK, "methods": {"rdl": {"layers": {"": ""}}}}
FIGURE = {"layers": [""], "data": DIGITS, "n_per_class": 2}


def brain(folder, **changes):
    """An experiment with a brain data set of 8 stimuli."""
    ids = [f"s{k}" for k in range(8)]
    for k, stimulus in enumerate(ids):
        Image.fromarray(np.full((8, 8), 20 * k, np.uint8)).save(folder / f"{stimulus}.png")
    rows = "".join(f"{stimulus}\t{'ab'[k % 2]}\n" for k, stimulus in enumerate(ids))
    (folder / "stimuli.tsv").write_text("stimulus\tcategory\n" + rows)
    random = np.random.default_rng(0).normal(size=(2, 8, 20))
    np.save(folder / "rdms.npy", np.stack([1 - np.corrcoef(patterns) for patterns in random]))
    rdms = {"file": "rdms.npy", "measure": "correlation", "descriptors": {"roi": "IT", "subject": ["1", "2"]}}
    stimuli = {"table": "stimuli.tsv", "file": "{stimulus}.png", "size": [8, 8], "channels": 1}
    spec = {"kind": "brain", "name": "own", "stimuli": stimuli, "data": {"format": "rdms", "files": [rdms]}}
    (folder / "spec.yaml").write_text(yaml.safe_dump(spec))
    spec = str(folder / "spec.yaml")
    pull = {"teacher": "it", "layers": {"": "IT"}, "alpha": 1.0}
    return {
        "name": "x",
        "stimuli": {"spec": spec, "categories": "category"},
        "students": {"own": {"network": "small_cnn", "arguments": {"image_size": 8, "channels": 1}}},
        "teachers": {"it": {"spec": spec, "subject_folds": 2}},
        "training": {"epochs": 1},
        "folds": {"n": 2},
        "methods": {"it": pull},
        "score": {"spec": spec, "layers": [""]},
        "seeds": [0],
        **changes,
    }


def ways_in(folder):
    """name -> the command, and what stands in FILE; all that names a network in a file."""
    trunk = {**OWN, "layer": ""}
    head = {"network": "linear_head", "arguments": {"in_channels": 4}, "trunk": trunk}
    search = {"trials": 2, "data": {"validation": 50}, "methods": {"baseline": {"training.learning_rate": [0.1, 0.01]}}}
    teacher = {**TAUGHT, "teacher": {**OWN, "training": {"epochs": 1}}}
    return {
        "student": (["run", "FILE", "--out", "OUT"], {**TASK, "student": OWN}),
        "student of a method": (["run", "FILE", "--out", "OUT"], {**TASK, "methods": {"baseline": {"student": OWN}}}),
        "teacher": (["run", "FILE", "--out", "OUT"], teacher),
        "check": (["check", "FILE"], {**TASK, "student": OWN}),
        "search": (["run", "FILE", "--search", "--out", "OUT"], {**TASK, "student": OWN, "search": search}),
        "set": (["run", "FILE", "--set", "student.network=evil.nets:make", "--out", "OUT"], TASK),
        "network of a figure": (["figure", "rdm", "FILE", "--out", "OUT/a.png"], {**FIGURE, **OWN}),
        "brain's student": (["run", "FILE", "--out", "OUT"], brain(folder, students={"own": OWN})),
        "brain's trunk": (["run", "FILE", "--out", "OUT"], brain(folder, students={"own": head})),
        "brain's check": (["check", "FILE"], brain(folder, students={"own": OWN})),
    }


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A package on the path whose import leaves a mark; its name may stand in files."""
    package, mark = tmp_path / "path" / "evil", tmp_path / "imported"
    package.mkdir(parents=True)
    leave = f"import pathlib; pathlib.Path({str(mark)!r}).touch()\n"
    (package / "__init__.py").write_text(leave)
    (package / "nets.py").write_text(leave + "def make(**given): raise RuntimeError('made')\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.chdir(package.parent)  # as one would be who unpacked it
    yield mark
    for name in ("evil", "evil.nets"):
        sys.modules.pop(name, None)


WAYS = ["student", "student of a method", "teacher", "check", "search", "set", "network of a figure"]
WAYS += ["brain's student", "brain's trunk", "brain's check"]


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_code_named_in_a_file_is_imported_only_where_it_is_allowed(way, allowed, evil, tmp_path):
    words, settings = ways_in(tmp_path)[way]
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(settings))
    places = {"FILE": str(tmp_path / "file.yaml"), "OUT": str(tmp_path / "out"), "OUT/a.png": str(tmp_path / "a.png")}
    words = [places.get(word, word) for word in words] + (["--allow-code"] if allowed else [])
    result = CliRunner().invoke(app, [*words, *(["--jobs", "1"] if words[0] == "run" else [])])
    assert result.exit_code == 2, result.output
    told = " ".join(result.output.split())
    if allowed:
        assert re.search(r"network 'evil.nets:make' cannot be made with .*: made", told) and evil.exists()
    else:
        assert "network 'evil.nets:make' runs code of that module; allow it with --allow-code" in told
        assert not evil.exists() and "evil" not in sys.modules


@pytest.mark.parametrize(
    "name",
    [
        "timm:hf-hub:evil/nets", "timm:hf_hub:evil/nets", "timm:local-dir:/tmp", "torchvision:evil.nets",
        "torchvision:../evil", "https://x.org/a.py:make", "evil/nets.py:make", ".evil:make", ":make", "evil:",
    ],
)  # fmt: skip
def test_other_names_of_networks_lead_nowhere(name, evil):
    with pytest.raises(ValueError, match=r"unknown network|runs code of that module"):
        build_network(name)
    assert not evil.exists()


# A working folder with modules in it


def hostile_folder(folder, names):
    """Modules of well-known names that leave a mark."""
    folder.mkdir()
    mark = folder / "ran"
    for name in names:
        (folder / f"{name}.py").write_text(f"open({str(mark)!r}, 'a').write({name!r} + ' ')\nraise SystemExit(9)\n")
    return mark


def python(folder, *words):
    """Python in the folder, as a user would start it."""
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONSAFEPATH", "PYTHONPATH")}
    return subprocess.run([sys.executable, *words], cwd=folder, env=clean, capture_output=True, text=True, check=False)


def test_modules_in_the_working_folder_are_not_run(tmp_path):
    mark = hostile_folder(tmp_path / "cwd", ("torch", "numpy", "pandas", "typer", "yaml", "timm", "pydantic"))
    assert python(mark.parent, "-c", "import torch").returncode == 9  # else this would show nothing
    assert mark.read_text() == "torch "
    mark.unlink()
    result = python(mark.parent, "-m", "brainrdl", "fetch", "digits")  # reads a spec
    assert result.returncode == 0 and "digits: nothing is downloaded" in result.stdout, result.stderr
    assert not mark.exists()


def test_nor_by_the_processes_that_a_run_starts(tmp_path):
    """They begin as `python -c`, which searches the working folder, and before anything else import these."""
    mark = hostile_folder(tmp_path / "cwd", ("multiprocessing", "runpy", "pickle", "socket"))
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, multiprocessing\n"
        "def nothing(): pass\n"
        "if __name__ == '__main__':\n"
        "    if sys.argv.pop() == 'through':\n"
        "        from brainrdl.cli import main\n"
        "        sys.argv = ['brainrdl', '--version']\n"
        "        try: main()\n"
        "        except SystemExit: pass\n"
        "    process = multiprocessing.get_context('spawn').Process(target=nothing)\n"
        "    process.start()\n"
        "    process.join()\n"
        "    print('ended with', process.exitcode)\n"
    )
    python(mark.parent, str(script), "without")
    assert mark.exists()  # Python as it is
    mark.unlink()
    result = python(mark.parent, str(script), "through")
    assert "ended with 0" in result.stdout, result.stderr
    assert not mark.exists()


# The audit of what is installed


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ("no JSON", 0, "its database is not reachable from here; nothing was audited"),
        ({"jinja2": None, "torch": None}, 0, "its database is not reachable from here; nothing was audited"),
        ({"jinja2": ["CVE-1"], "torch": []}, 0, "pip-audit: 1 packages audited, 0 known holes"),
        ({"jinja2": ["CVE-1"], "torch": ["CVE-2"]}, 1, "torch 1.0: CVE-2, mended in 2.0"),
        ({"jinja2": ["CVE-1"], "torch": ["open"]}, 0, "torch 1.0: open, mended in no version yet"),
    ],
)
def test_the_audit_fails_on_a_known_hole_and_says_where_nothing_could_be_asked(answer, code, told, tmp_path):
    def package(name):
        if not isinstance(answer, dict):
            return answer
        holes = answer[name]
        told = {"skip_reason": "not found"} if holes is None else {"version": "1.0", "vulns": [
            {"id": hole, "fix_versions": [] if hole == "open" else ["2.0"]} for hole in holes
        ]}  # fmt: skip
        return json.dumps({"dependencies": [{"name": name, **told}]})

    (tmp_path / "pip_audit.py").write_text(
        f"import sys\nprint({package('jinja2')!r} if '--requirement' in sys.argv else {package('torch')!r})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    script = [sys.executable, str(ROOT / ".ci" / "audit")]
    result = subprocess.run(script, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == code and told in result.stdout, result.stderr


# Paths of specs


OUTSIDE = [
    "../secret.tsv",
    "/etc/passwd",
    "a/../../secret.tsv",
    "..\\secret.tsv",
    "C:/secret.tsv",
    "\\\\server\\secret.tsv",
]
BETAS = {
    "kind": "brain",
    "name": "own",
    "data": {"format": "betas", "images": "{subject}/{run}.nii", "trials": "{subject}/{run}.tsv"},
    "subjects": ["1"],
    "rois": {"V1": {"mask": "{subject}/v1.nii"}, "IT": {"atlas": "it.nii", "labels": [1]}},
    "stimuli": {"table": "stimuli.tsv", "file": "{stimulus}.png"},
    "voxels": {"min_reliability": 0.1, "stimuli": "some.txt"},
}
BOLD = {**BETAS, "data": {"format": "bold", "images": "{run}.nii", "events": "{run}.tsv", "confounds": "{run}_c.tsv"}}
MADE = {
    "kind": "brain",
    "name": "own",
    "data": {"format": "rdms", "files": [{"file": "a.h5"}]},
    "stimuli": {"ids": "{number}", "n": 3},
}
GLMSINGLE = {**BETAS, "data": {"format": "glmsingle", "outputs": "{subject}", "trials": "{subject}.tsv"}}
FIELDS = [
    (BETAS, "data.images"),
    (BETAS, "data.trials"),
    (BETAS, "rois.V1.mask"),
    (BETAS, "rois.IT.atlas"),
    (BETAS, "stimuli.table"),
    (BETAS, "stimuli.file"),
    (BETAS, "voxels.stimuli"),
    (BETAS, "subjects.0"),
    (BETAS, "hemispheres.0"),
    (BETAS, "data.sessions.0"),
    (BETAS, "data.runs.0"),
    (BOLD, "data.events"),
    (BOLD, "data.confounds"),
    (BOLD, "data.runs.0"),
    (GLMSINGLE, "data.outputs"),
    (GLMSINGLE, "data.betas"),
    (MADE, "data.files.0.file"),
]


def changed(spec, field, value):
    """The spec with another value in a field; lists are made where there are none."""
    spec = json.loads(json.dumps(spec))
    *way, last = field.split(".")
    place = spec
    for k, key in enumerate(way):
        if isinstance(place, list):
            place = place[int(key)]
        else:
            place = place.setdefault(key, [None] if (*way, last)[k + 1] == "0" else {})
    place[int(last) if isinstance(place, list) else last] = value
    return spec


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize(("spec", "field"), FIELDS, ids=[f"{spec['data']['format']} {field}" for spec, field in FIELDS])
def test_no_path_of_a_spec_leads_out_of_the_data_sets_folder(spec, field, outside, tmp_path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(changed(spec, field, outside)))
    with pytest.raises(ValueError, match=rf"spec.yaml': {re.escape(field)}: expected a (path|name as it).* below"):
        load_brain_spec(tmp_path / "spec.yaml")
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec))
    assert load_brain_spec(tmp_path / "spec.yaml").name == "own"


@pytest.mark.parametrize("outside", ["../secret", "/etc/passwd", "x/../../secret"])
def test_nor_does_what_a_table_or_a_files_name_puts_into_it(outside, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"")
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "stimuli.tsv").write_text(f"stimulus\tfile\na\t{outside}\n")
    settings = StimulusFiles(table="stimuli.tsv", file="{file}.png")
    told = "own: stimulus 'a': expected a path below the data set's folder .*; put the file there, or a link to it, or"
    with pytest.raises(ValueError, match=told):
        read_stimulus_set(settings, folder, "own")
    with pytest.raises(ValueError, match=r"'\{subject\}.nii': expected a path below the data set's folder"):
        fill("{subject}.nii", folder, outside)
    with pytest.raises(ValueError, match=r"'\{subject\}_\{run\}.nii': expected a path below the data set's folder"):
        find_runs("{subject}_{run}.nii", folder, outside)


def test_a_link_below_the_folder_may_lead_anywhere(tmp_path):
    """As data sets of git-annex and of full disks are: whoever keeps the folder made it."""
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("L", (4, 4), 7).save(tmp_path / "elsewhere.png")
    (folder / "a.png").symlink_to(tmp_path / "elsewhere.png")
    (folder / "stimuli.tsv").write_text("stimulus\na\n")
    images = read_stimulus_set(StimulusFiles(table="stimuli.tsv", file="{stimulus}.png"), folder, "own").images
    assert images[0][0].max() == pytest.approx(7 / 255)


@pytest.mark.parametrize(
    "pattern", ["{subject:>999999999999}", "{subject!r:>99}", "{subject:{run}}", "{subject:099999}"]
)
def test_a_short_pattern_does_not_become_a_long_name(pattern, tmp_path):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(changed(BETAS, "data.images", pattern)))
    with pytest.raises(ValueError, match=r"data.images: expected a path with .*'subject' in braces: expected a name"):
        load_brain_spec(tmp_path / "spec.yaml")
    (tmp_path / "stimuli.tsv").write_text("stimulus\na\n")
    settings = StimulusFiles(table="stimuli.tsv", file=pattern.replace("subject", "stimulus"))
    with pytest.raises(ValueError, match=r"stimuli.file .*'stimulus' in braces: expected a name"):
        read_stimulus_set(settings, tmp_path, "own")
    with pytest.raises(ValueError, match="is no pattern of a number"):
        read_stimulus_table(StimulusFiles(ids=pattern.replace("subject", "number"), n=3), tmp_path, "own")


def test_nothing_of_a_value_can_be_asked_for():
    """As `format` would allow: {stimulus.__class__}."""
    assert filled("{a}-{n:02d}.png", {"a": "{n}", "n": 3}) == "{n}-03.png"
    assert filled("{a.b}", {"a": "x", "a.b": "a column of that name"}) == "a column of that name"
    for pattern in ("{a.__class__}", "{a[0]}"):
        with pytest.raises(KeyError):
            filled(pattern, {"a": "x"})


@pytest.mark.parametrize("name", ["x.psd", "x.fits", "x.eps", "x.im"])
def test_an_image_of_a_rare_format_is_refused_whatever_it_is_called(name, tmp_path):
    """Pillow goes by the content: readers of formats that nobody has images in are a way in."""
    Image.new("L", (4, 4)).save(tmp_path / "good.png")
    content = (tmp_path / "good.png").read_bytes()
    rare = {"psd": b"8BPS\0\1" + bytes(40), "fits": b"SIMPLE  =                    T" + bytes(2850)}
    if name.endswith((".eps", ".im")):
        Image.new("L", (4, 4)).save(tmp_path / name)
        rare[name[2:]] = (tmp_path / name).read_bytes()
    images = ImageFiles([tmp_path / "a.png"], ["a"], torch.tensor([0]), (4, 4), 1)
    (tmp_path / "a.png").write_bytes(rare[name[2:]])
    with pytest.raises(ValueError, match=r"a.png cannot be read \(cannot identify image file"):
        images[0]
    with pytest.raises(ValueError, match=r"a.png cannot be read \(cannot identify image file"):
        load_thumbnails(tmp_path, ["a"])
    (tmp_path / "a.png").write_bytes(content)
    assert images[0][0].shape == (1, 4, 4) and set(load_thumbnails(tmp_path, ["a"])) == {"a"}


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/b", "..", ".x", "a\\b", "", "x\n"])
@pytest.mark.parametrize("what", ["teacher", "student", "method", "experiment"])
def test_no_name_in_an_experiment_leads_out_of_the_runs_folder(what, name, tmp_path):
    settings = brain(tmp_path)
    if what == "teacher":
        settings |= {"teachers": {name: settings["teachers"]["it"]}}
        settings["methods"]["it"]["teacher"] = name
    elif what == "student":
        settings |= {"students": {name: settings["students"]["own"]}}
    elif what == "method":
        settings |= {"methods": {name: settings["methods"]["it"]}}
    else:
        settings |= {"name": name}
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(settings))
    before = set(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["run", str(tmp_path / "file.yaml"), "--out", str(tmp_path / "in" / "run")])
    assert result.exit_code == 2 and re.search("cannot be a (file|folder)'s name", result.output)
    assert set(tmp_path.rglob("*")) == before
