"""Files that may hold code: what is data is read as numpy reads it, anything else is refused and never run."""

import io
import os
import pickle
import sys
import zipfile
import zlib
from collections import OrderedDict
from datetime import date

import numpy as np
import pytest

from brainrdl.restricted_files import check_claim, load_array, load_dict, load_npz, reading, unpack_checked

ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.arange(6.0).reshape(2, 3).T,
    np.arange(24, dtype=np.int16).reshape(2, 3, 4)[:, ::2],
    np.arange(24, dtype=np.int16).reshape(2, 3, 4).transpose(1, 0, 2),
    np.arange(4, dtype=">f4"),
    np.array([True, False]),
    np.array([1 + 2j, np.nan], np.complex64),
    np.zeros((3, 0, 2), np.float16),
    np.array(3.5),
    np.array([np.nan, np.inf, -0.0]),
]


def assert_same(a, b):
    if isinstance(b, np.ndarray):
        assert type(a) is np.ndarray
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    elif isinstance(b, dict):
        assert type(a) is dict
        assert list(a) == list(b)
        for key in b:
            assert_same(a[key], b[key])
    elif isinstance(b, list | tuple):
        assert type(a) is type(b)
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same(one, other)
    else:
        assert type(a) is type(b)
        assert a == b


def pickled(path, value, protocol=None):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


# arrays


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("array", [a for a in ARRAYS if a.size])
def test_an_array_is_numpys(array, mmap, tmp_path):
    np.save(tmp_path / "a.npy", array)
    again = load_array(tmp_path / "a.npy", mmap=mmap)
    assert isinstance(again, np.memmap) == mmap
    assert_same(np.array(again), array)


@pytest.mark.parametrize("mmap", [False, True])
def test_an_array_file_that_is_wrong_is_named(mmap, tmp_path):
    with pytest.raises(ValueError, match=r"absent.npy: cannot be opened \(No such file"):
        load_array(tmp_path / "absent.npy", mmap)
    np.save(tmp_path / "objects.npy", np.array([{}, None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy: expected an array of numbers, got Python objects.*save it as"):
        load_array(tmp_path / "objects.npy", mmap)
    with pytest.raises(ValueError, match=r"pickle.npy: expected a .npy file, got a pickle, and reading that runs code"):
        load_array(pickled(tmp_path / "pickle.npy", [1, 2]), mmap)
    (tmp_path / "text.npy").write_text("1,2")
    with pytest.raises(ValueError, match=r"text.npy: expected a .npy file, got something else"):
        load_array(tmp_path / "text.npy", mmap)
    np.save(tmp_path / "header.npy", np.arange(3.0))
    content = (tmp_path / "header.npy").read_bytes()
    (tmp_path / "header.npy").write_bytes(content.replace(b"}", b"{"))  # no end of its expression
    with pytest.raises(ValueError, match=r"header.npy: cut short or damaged"):
        load_array(tmp_path / "header.npy", mmap)
    (tmp_path / "nothing.npy").touch()
    with pytest.raises(ValueError, match=r"nothing.npy: expected a .npy file, got an empty file"):
        load_array(tmp_path / "nothing.npy", mmap)
    np.save(tmp_path / "whole.npy", np.arange(100.0))
    whole = (tmp_path / "whole.npy").read_bytes()
    for length in (7, 40, 200, len(whole) - 1):
        (tmp_path / "cut.npy").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut.npy: cut short or damaged .*copy or write it again"):
            load_array(tmp_path / "cut.npy", mmap)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_an_npz_are_numpys(save, tmp_path):
    save(tmp_path / "a.npz", one=ARRAYS[0], other=ARRAYS[1])
    assert_same(load_npz(tmp_path / "a.npz", "other"), ARRAYS[1])
    save(tmp_path / "single.npz", ARRAYS[2])
    assert_same(load_npz(tmp_path / "single.npz"), ARRAYS[2])
    with pytest.raises(ValueError, match=r"a.npz: several arrays and no key was given; give one of: one, other"):
        load_npz(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"a.npz: no key 'third'; give one of: one, other"):
        load_npz(tmp_path / "a.npz", "third")


def test_an_npz_that_is_wrong_is_named(tmp_path):
    np.savez(tmp_path / "objects.npz", a=np.array([{}, None]))
    with pytest.raises(ValueError, match=r"objects.npz, key 'a': expected an array of numbers, got Python objects"):
        load_npz(tmp_path / "objects.npz")
    np.savez_compressed(tmp_path / "whole.npz", a=np.random.default_rng(0).normal(size=1000))
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"cut.npz: no .npz file, or one cut short or damaged"):
        load_npz(tmp_path / "cut.npz")
    (tmp_path / "changed.npz").write_bytes(whole[:500] + b"\0" * 50 + whole[550:])
    with pytest.raises(ValueError, match=r"changed.npz, key 'a': cut short or damaged \(Bad CRC"):
        load_npz(tmp_path / "changed.npz")
    buffer = io.BytesIO()
    np.save(buffer, np.arange(50.0))
    with zipfile.ZipFile(tmp_path / "inside.npz", "w") as archive:
        archive.writestr("a.npy", buffer.getvalue()[:-8])
    with pytest.raises(ValueError, match=r"inside.npz, key 'a': cut short or damaged"):
        load_npz(tmp_path / "inside.npz")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    with pytest.raises(ValueError, match=r"empty.npz: there is no array in it; write it again"):
        load_npz(tmp_path / "empty.npz")


# dicts


VALUE = {
    "arrays": ARRAYS,
    "numbers": (1, -(2**80), 0.1, 1 + 2j, True, None, np.float32(0.1), np.int64(7), np.bool_(True)),
    "nested": {"text": "Käfer\n犬", 3: [[], (), {}], (1, "a"): np.arange(3)},
    "twice": [ARRAYS[0], ARRAYS[0]],
    "read-only": np.frombuffer(b"12345678", np.int32),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_dict_of_data_is_what_pickle_gives(protocol, tmp_path):
    again = load_dict(pickled(tmp_path / "data.pkl", VALUE, protocol))
    assert_same(again, pickle.loads((tmp_path / "data.pkl").read_bytes()))
    assert again["twice"][0] is again["twice"][1]
    again["arrays"][0][0, 0] = 5
    assert again["twice"][0][0, 0] == (5 if again["arrays"][0] is again["twice"][0] else 0)


@pytest.mark.parametrize("protocol", range(4))
def test_both_spellings_of_numpys_modules_are_known(protocol, tmp_path):
    data = pickle.dumps(VALUE, protocol)
    spellings = data.replace(b"numpy.core", b"numpy._core"), data.replace(b"numpy._core", b"numpy.core")
    assert spellings[0] != spellings[1]
    for spelling in spellings:
        (tmp_path / "data.pkl").write_bytes(spelling)
        assert_same(load_dict(tmp_path / "data.pkl"), pickle.loads(data))


def test_a_pickle_of_python_2_is_read(tmp_path):
    # pickle.dumps({'a': numpy.array([1.0])}, 2) as Python 2 wrote it: its bytes are text of one byte a character.
    data = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85cnumpy\n"
        b"dtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x00\x00\x00\x00\xf0?tbs."
    )
    (tmp_path / "old.pkl").write_bytes(data)
    assert_same(load_dict(tmp_path / "old.pkl"), {"a": np.array([1.0])})


@pytest.mark.parametrize("array", ARRAYS)
def test_a_dict_in_an_npy_file_is_what_numpy_gives(array, tmp_path):
    value = {"betasmd": array, "pcnum": 4, "pcregressors": [array, array.copy()], "onoffR2": None}
    np.save(tmp_path / "TYPED.npy", value)
    assert_same(load_dict(tmp_path / "TYPED.npy"), np.load(tmp_path / "TYPED.npy", allow_pickle=True).item())


def test_an_array_is_not_copied_on_the_way(tmp_path):
    import tracemalloc

    np.save(tmp_path / "big.npy", {"a": np.zeros(1_000_000)})
    tracemalloc.start()
    load_dict(tmp_path / "big.npy")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 8_000_000


def test_a_value_that_holds_itself_and_one_that_stands_in_many_places_end(tmp_path):
    value = {}
    value["self"] = [value]
    again = load_dict(pickled(tmp_path / "self.pkl", value))
    assert again["self"][0] is again
    many = [0]
    for _ in range(100):  # 2^100 places, were each looked at
        many = [many, many]
    again = load_dict(pickled(tmp_path / "many.pkl", {"many": many}))
    assert again["many"][0] is again["many"][1]


# code


class Runs:
    """A pickle of it calls `function(*arguments)` when it is read."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Sets(Runs):
    """... and then sets attributes of what came out."""

    def __init__(self, function, arguments, state):
        self.reduced = function, arguments, state


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"a": v}, lambda v: {"a": np.array([v, 1], object)}])
def test_code_is_not_run(protocol, wrap, tmp_path):
    bait = wrap(Runs(os.mkdir, str(tmp_path / "made")))
    with pytest.raises(ValueError, match=r"a.pkl: holds a pickle that asks for '(posix|nt).mkdir'; read are only dict"):
        load_dict(pickled(tmp_path / "a.pkl", bait, protocol))
    np.save(tmp_path / "a.npy", np.array(bait, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a.npy: holds .*'(posix|nt).mkdir'.* can run any code; save it as HDF5, or"):
        load_dict(tmp_path / "a.npy")
    assert not (tmp_path / "made").exists()
    pickle.loads(pickle.dumps(bait, protocol))
    assert (tmp_path / "made").exists(), "the bait would have bitten"


@pytest.mark.parametrize(
    ("value", "asked"),
    [
        (Runs(os.system, "exit 1"), "system"),
        (Runs(eval, "1"), "builtins.eval"),
        (Runs(getattr, {}, "clear"), "builtins.getattr"),
        (Runs(__import__, "os"), "builtins.__import__"),
        (Runs(np.load, "x.npy"), "numpy.load"),
        (Runs(np.fromfile, "x"), "fromfile"),
        (np.memmap, "memmap"),
        (np.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)]), "rec"),
        (np.ma.array([1, 2], mask=[0, 1]), "numpy.ma"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (date(2024, 1, 1), "datetime.date"),
        (b"bytes", "a bytes"),
        ({1, 2}, "a set"),
        (slice(1), "builtins.slice"),
        (np.array([1, "a"], object), "an array of Python objects"),
        (np.array({"a": 1}, object), "an array of Python objects"),
        (np.array(["text"]), "an array of type 'U4'"),
        (np.array(["2020-01-01"], "M8[D]"), "an array of type 'M8'"),
        (np.zeros(2, [("a", "f4")]), "an array of type 'V4'"),
        (np.dtype("f4"), "a dtype"),
        (np.ndarray, "a type"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_name(value, asked, tmp_path):
    with pytest.raises(ValueError, match=rf"a.pkl: holds .*{asked}.*; read are only dict, list, tuple, text, numbers"):
        load_dict(pickled(tmp_path / "a.pkl", {"a": value}))


F8 = np.dtype("f8")
RECONSTRUCT = np.zeros(1).__reduce__()[0]
SCALAR = np.float64(1).__reduce__()[0]
FROMBUFFER = np.zeros(1).__reduce_ex__(5)[0]
BYTES = b"\x01" * 8


def array_saying(*state, shape=(0,), code=b"b", cls=np.ndarray):
    return Sets(RECONSTRUCT, (cls, shape, code), state)


def dtype_saying(name, *state):
    return Sets(np.dtype, (name, False, True), state)


LYING = {
    "too few bytes": array_saying(1, (2,), F8, False, BYTES),
    "too many bytes": array_saying(1, (1,), F8, False, BYTES * 2),
    "a negative size": array_saying(1, (-1,), F8, False, BYTES),
    "sizes that overflow": array_saying(1, (2**62, 4), F8, False, b""),
    "a size that is no number": array_saying(1, ("1",), F8, False, BYTES),
    "a shape that is no tuple": array_saying(1, 1, F8, False, BYTES),
    "no bytes": array_saying(1, (1,), F8, False, [1.0]),
    "no type": array_saying(1, (1,), "f8", False, BYTES),
    "no state": Sets(RECONSTRUCT, (np.ndarray, (0,), b"b"), None),
    "a short state": array_saying(1, (1,), F8),
    "bytes for objects": array_saying(1, (1,), np.dtype("O"), False, BYTES),
    "bytes for one object": array_saying(1, (), np.dtype("O"), False, BYTES),
    "two objects in a 0-dimensional array": array_saying(1, (), np.dtype("O"), False, [1, 2]),
    "objects that say they are none": array_saying(
        1, (1,), dtype_saying("O8", 3, "|", None, None, None, -1, -1, 0), False, BYTES
    ),
    "hidden objects": array_saying(
        1, (1,), dtype_saying("V8", 3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0), False, BYTES
    ),
    "fields in a number": array_saying(
        1, (1,), dtype_saying("f8", 3, "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0), False, BYTES
    ),
    "another size of a number": array_saying(
        1, (1,), dtype_saying("f8", 3, "<", None, None, None, 10**9, 8, 0), False, b""
    ),
    "another byte order": array_saying(1, (1,), dtype_saying("f8", 3, "x", None, None, None, -1, -1, 0), False, BYTES),
    "a type by code": Runs(np.dtype, "f8,O"),
    "a type by a list": Runs(np.dtype, [("a", "O")]),
    "a type without a name": Runs(np.dtype),
    "an array called": Runs(np.ndarray, (2,), "f8"),
    "a class that is none": Runs(RECONSTRUCT, dict, (0,), b"b"),
    "_reconstruct of nothing": Runs(RECONSTRUCT),
    "a scalar object": Runs(SCALAR, np.dtype("O"), BYTES),
    "a scalar of few bytes": Runs(SCALAR, F8, b"\x01"),
    "a scalar without bytes": Runs(SCALAR, F8),
    "a scalar of text": Runs(SCALAR, F8, 3),
    "a buffer of objects": Runs(FROMBUFFER, BYTES, np.dtype("O"), (1,), "C"),
    "a short buffer": Runs(FROMBUFFER, BYTES, F8, (2,), "C"),
    "a buffer that is a number": Runs(FROMBUFFER, 8, F8, (1,), "C"),
    "an unknown order": Runs(FROMBUFFER, BYTES, F8, (1,), "?"),
    "unknown axes": Runs(FROMBUFFER, BYTES, F8, (1,), "K", (5,)),
    "attributes of a function": Sets(RECONSTRUCT, (np.ndarray, (0,), b"b"), (None, {"__class__": int})),
    "bytes of a number": Runs(bytes, 10**12),
    "another state of a made array": Sets(FROMBUFFER, (BYTES, F8, (1,), "C"), (1, (9,), F8, False, BYTES)),
    "complex of anything": Runs(complex, "no number"),
}


@pytest.mark.parametrize("value", LYING.values(), ids=LYING.keys())
def test_admitted_names_with_lying_arguments_are_refused(value, tmp_path):
    with pytest.raises(ValueError, match=r"a.pkl: (holds|no pickle, or one cut short or damaged)"):
        load_dict(pickled(tmp_path / "a.pkl", {"a": value}))


def test_an_array_of_another_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a.pkl: holds an array of another class; read are only dict"):
        load_dict(pickled(tmp_path / "a.pkl", {"a": Runs(RECONSTRUCT, np.dtype, (0,), b"b")}))


def test_a_codec_is_not_a_way_round(tmp_path):
    import _codecs

    with pytest.raises(ValueError, match=r"holds text in rot13"):
        load_dict(pickled(tmp_path / "a.pkl", {"a": Runs(_codecs.encode, "abc", "rot13")}))


@pytest.mark.parametrize(
    "what", [b"cnumpy\ndtype\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\nscalar\n", b"c_codecs\nencode\n"]
)
def test_a_pickle_cannot_change_what_reads_the_next_one(what, tmp_path):
    for state in (b"}S'__call__'\ncnumpy\ndtype\ns", b"(N}S'__init__'\ncnumpy\ndtype\nst"):
        (tmp_path / "a.pkl").write_bytes(what + state + b"b.")
        with pytest.raises(ValueError, match=r"a.pkl: (holds|no pickle, or one cut short)"):
            load_dict(tmp_path / "a.pkl")
    good = {"a": np.arange(3), "b": np.float32(1)}
    for protocol in (2, 5):
        assert_same(load_dict(pickled(tmp_path / "good.pkl", good, protocol)), good)


def test_other_ways_out_of_a_pickle_are_closed(tmp_path):
    for code in (
        b"Pname\n.",
        b"X\x01\x00\x00\x00aQ.",
        b"(ios\nsystem\n.",
        b"(cos\nsystem\nS'exit 1'\no.",
        b"\x82\x01.",
    ):
        (tmp_path / "a.pkl").write_bytes(code)
        with pytest.raises(ValueError, match=r"a.pkl: (holds a pickle that|no pickle, or one cut short)"):
            load_dict(tmp_path / "a.pkl")


def test_joblibs_pickles_are_refused_though_they_hold_arrays(tmp_path):
    import joblib

    joblib.dump({"a": np.arange(100.0)}, tmp_path / "a.pkl")
    with pytest.raises(ValueError, match=r"a.pkl: holds a pickle that asks for 'joblib.numpy_pickle.NumpyArray"):
        load_dict(tmp_path / "a.pkl")


def test_a_file_that_is_no_dict_is_named(tmp_path):
    np.save(tmp_path / "numbers.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"numbers.npy: expected a dict, got an array of numbers; .*load_array"):
        load_dict(tmp_path / "numbers.npy")
    with pytest.raises(ValueError, match=r"list.pkl: expected a dict, got a list"):
        load_dict(pickled(tmp_path / "list.pkl", [1]))
    with pytest.raises(ValueError, match=r"absent.pkl: cannot be opened"):
        load_dict(tmp_path / "absent.pkl")
    (tmp_path / "text.pkl").write_text("not a pickle")
    with pytest.raises(ValueError, match=r"text.pkl: no pickle, or one cut short or damaged"):
        load_dict(tmp_path / "text.pkl")
    (tmp_path / "huge.pkl").write_bytes(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"a.")
    with pytest.raises(ValueError, match=r"huge.pkl: no pickle, or one cut short or damaged"):
        load_dict(tmp_path / "huge.pkl")
    deep = b"]" * (10 * sys.getrecursionlimit()) + b"a" * (10 * sys.getrecursionlimit() - 1) + b"."
    (tmp_path / "deep.pkl").write_bytes(deep)
    with pytest.raises(ValueError, match=r"deep.pkl: no pickle, or one cut short or damaged"):
        load_dict(tmp_path / "deep.pkl")


@pytest.mark.parametrize("suffix", ["pkl", "npy"])
def test_every_way_of_cutting_a_file_short_is_told(suffix, tmp_path):
    value = {"a": np.arange(5.0), "b": [np.float32(1), "text", 2**70]}
    np.save(tmp_path / "whole.npy", value)
    pickled(tmp_path / "whole.pkl", value)
    whole = (tmp_path / f"whole.{suffix}").read_bytes()
    for length in range(len(whole)):
        (tmp_path / f"cut.{suffix}").write_bytes(whole[:length])
        with pytest.raises(ValueError, match=rf"cut.{suffix}: "):
            load_dict(tmp_path / f"cut.{suffix}")


def test_damaged_bytes_are_data_or_an_error_and_nothing_else(tmp_path):
    whole = pickle.dumps({"a": np.arange(5.0), "b": [np.float32(1), "text", None]}, 4)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        for place in generator.integers(0, len(data), generator.integers(1, 4)):
            data[place] = generator.integers(256)
        (tmp_path / "a.pkl").write_bytes(data)
        try:
            assert isinstance(load_dict(tmp_path / "a.pkl"), dict)
        except ValueError as error:
            assert str(tmp_path / "a.pkl") in str(error)
            refused += 1
    assert 250 < refused < 500


# sizes that are not true


def npy(header, content=b""):
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("shape", ["(1000000, 1000000)", "(-1,)", "(2, -3)", "(4611686018427387904, 4)", "(3,)"])
def test_an_array_larger_than_its_file_is_refused_before_memory_is_taken(shape, mmap, tmp_path):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}"
    (tmp_path / "a.npy").write_bytes(npy(header, bytes(16)))
    with pytest.raises(
        ValueError, match=r"a.npy: cut short or damaged \(an array of float64 and shape .* in \d+ bytes\)"
    ):
        load_array(tmp_path / "a.npy", mmap)


def test_packed_zeros_are_not_unpacked(tmp_path):
    header = npy("{'descr': '|u1', 'fortran_order': False, 'shape': (8000, 8000)}")
    with (
        zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as member,
    ):
        member.write(header)
        for _ in range(64):
            member.write(bytes(10**6))
    with pytest.raises(
        ValueError, match=r"a.npz, key 'a': says that it holds 64000000 numbers, and is \d+ bytes long: da"
    ):
        load_npz(tmp_path / "a.npz")
    with (
        zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.npy", "w") as member,
    ):
        for _ in range(300):  # no header, whose length would be read
            member.write(bytes(10**6))
    with pytest.raises(ValueError, match=r"b.npz, key 'a': says that it holds 75000000 numbers, and is \d+ bytes long"):
        load_npz(tmp_path / "b.npz")
    np.savez_compressed(tmp_path / "c.npz", a=np.zeros((2000, 2000)))
    assert load_npz(tmp_path / "c.npz").shape == (2000, 2000)


@pytest.mark.parametrize("put", [b"r\xff\xff\xff\x7f", b"p99999999999\n"])
def test_a_pickle_does_not_make_a_memo_larger_than_itself(put, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x02}" + put + b".")
    with pytest.raises(ValueError, match=r"a.pkl: holds place \d+ of its memo in \d+ bytes; read are only dict"):
        load_dict(tmp_path / "a.pkl")


def test_whatever_a_reader_raises_names_the_file_once():
    short_of_memory = r"^f.h5: no file \(there is not enough memory\); copy or write it again$"
    with pytest.raises(ValueError, match=short_of_memory), reading("f.h5", "no file"):
        raise MemoryError
    with (
        pytest.raises(ValueError, match=r"^f.h5: no file \(KeyError\); mend it$"),
        reading("f.h5", "no file", "mend it"),
    ):
        raise KeyError
    with (
        pytest.raises(ValueError, match=r"^f.h5: no file \(a\\x1b\[31mb\); mend it$"),
        reading("f.h5", "no file", "mend it"),
    ):
        raise RuntimeError("a\x1b[31mb\nand a second line")
    with pytest.raises(ValueError, match=r"^f.h5: told already$"), reading("f.h5", "no file"):
        raise ValueError("f.h5: told already")


def test_what_is_really_there_is_believed():
    check_claim(10**9, 8, 4 * 10**8, "f")
    check_claim(2**24, 1, 10, "f")
    with pytest.raises(
        ValueError, match="f: says that it holds 16777217 numbers, and is 10 bytes long: damaged, or packed"
    ):
        check_claim(2**24 + 1, 1, 10, "f")
    assert unpack_checked(zlib.compress(b"abc" * 1000), 10, "f") == b"abc" * 1000
