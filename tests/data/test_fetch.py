"""Bringing public files: resuming, checksums, archives, and the command. The server is on this machine."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from brainrdl.cli import app
from brainrdl.data import spec_names
from brainrdl.data.fetch import CHUNK, FetchError, PublicFile, fetch_files, unpack
from brainrdl.data.spec import DataSpec, load_spec
from brainrdl.fmri.spec import load_brain_spec

CONTENT = bytes(range(256)) * 5000  # 1.28 MB
GIB = 2**30


class Server(ThreadingHTTPServer):
    """Gives `files` by path. ranges: sends the rest when asked. breaks_after: bytes until it hangs up, once.

    ends_after: bytes that it sends in chunks, once, after the whole length. packs: sends all packed, though
    nobody asked. moved: path -> the address that it sends one to. endless: sends for ever, and tells no length.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/data.bin": CONTENT}
        self.ranges, self.breaks_after, self.ends_after, self.asked = True, None, None, []

        self.moved, self.endless, self.packs = {}, False, False

    def url(self, path="/data.bin"):
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, content, begin = self.server, self.server.files.get(self.path), 0
        asked = self.headers.get("Range")
        server.asked.append(asked)
        if self.path in server.moved:
            self.send_response(302)
            self.send_header("Location", server.moved[self.path])
            return self.end_headers()
        if server.endless:
            self.send_response(200)
            self.end_headers()
            while not self.wfile.closed:
                try:
                    self.wfile.write(bytes(CHUNK))
                except OSError:
                    break
            self.close_connection = True
            return None
        if content is None:
            return self.send_error(404)
        if asked and server.ranges:
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.packs:
            content = gzip.compress(content)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content) - begin))
        if server.ends_after is not None:
            content, server.ends_after = content[: server.ends_after], None
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content))
            self.close_connection = True
            return None
        self.end_headers()
        breaks, server.breaks_after = server.breaks_after, None
        self.wfile.write(content[begin : None if breaks is None else begin + breaks])
        self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def public(server, path="data.bin", content=CONTENT, **more):
    return PublicFile(url=server.url(f"/{path}"), sha256=hashlib.sha256(content).hexdigest(), path=path, **more)


def test_a_file_is_brought_checked_and_not_brought_again(server, tmp_path):
    file = public(server).model_copy(update={"path": "deep/below/data.bin"})
    (first,) = fetch_files([file], tmp_path)
    assert first.path == tmp_path / "deep/below/data.bin" and not first.was_there
    assert first.path.read_bytes() == CONTENT
    (second,) = fetch_files([file], tmp_path)
    assert second.was_there and server.asked == [None]
    assert [path.name for path in first.path.parent.iterdir()] == ["data.bin"]


def test_md5_serves_where_a_publisher_has_nothing_else(server, tmp_path):
    # Over https in a spec: md5 alone is refused over http, where anyone on the way may change a file.
    file = PublicFile(url="https://x.org/data.bin", md5=hashlib.md5(CONTENT).hexdigest(), path="data.bin")
    file = file.model_copy(update={"url": server.url()})
    assert fetch_files([file], tmp_path)[0].path.read_bytes() == CONTENT
    with pytest.raises(FetchError, match="expected md5 0000"):
        fetch_files([file.model_copy(update={"md5": "0" * 32, "path": "other.bin"})], tmp_path)


def test_both_checksums_are_held_where_a_spec_tells_both(server, tmp_path):
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch_files([public(server, md5=md5)], tmp_path)[0].path.read_bytes() == CONTENT
    with pytest.raises(FetchError, match="expected md5 0000"):
        fetch_files([public(server, md5="0" * 32).model_copy(update={"path": "other.bin"})], tmp_path)


def test_a_file_that_is_there_is_never_overwritten(server, tmp_path):
    mine = tmp_path / "data.bin"
    mine.write_bytes(CONTENT[:-1] + b"?")
    told = r"data.bin: is there, but expected sha256 .*; nothing is overwritten: rename or delete it, then fetch again"
    with pytest.raises(FetchError, match=told):
        fetch_files([public(server)], tmp_path)
    assert mine.read_bytes() == CONTENT[:-1] + b"?" and server.asked == []
    mine.unlink()
    mine.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FetchError, match=r"data.bin: is there, but it is no file; nothing is overwritten"):
        fetch_files([public(server)], tmp_path)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (None, "sends more than 0.001 GiB, and its spec tells no size; it is not kept"),
        (len(CONTENT) - 1, f"sends more than {len(CONTENT) - 1} bytes, as its spec says; it is not kept"),
    ],
)
@pytest.mark.parametrize("endless", [False, True])
def test_a_server_that_sends_more_than_was_told_is_left(endless, size, told, server, tmp_path):
    server.endless = endless
    with pytest.raises(FetchError, match=told):
        fetch_files([public(server, size=size, max_unpacked_gib=0.001)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_address_that_leads_to_a_file_of_this_machine_is_refused(server, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(CONTENT)
    server.moved["/data.bin"] = secret.as_uri()
    with pytest.raises(FetchError, match=r"no connection, or it broke off \(InvalidSchema\)"):
        fetch_files([public(server)], tmp_path / "into")
    assert list((tmp_path / "into").iterdir()) == []


def test_an_encrypted_address_does_not_lead_to_one_that_is_not(server, tmp_path, monkeypatch):
    import requests

    get = requests.get
    monkeypatch.setattr(requests, "get", lambda url, **more: get(url.replace("https://x.org", server.url("")), **more))
    file = public(server).model_copy(update={"url": "https://x.org/data.bin"})
    with pytest.raises(FetchError, match=r"https://x.org/data.bin: leads to an address without encryption, http://127"):
        fetch_files([file], tmp_path)
    assert list(tmp_path.iterdir()) == []
    server.moved["/moved.bin"] = server.url()  # what was not encrypted before may move
    assert fetch_files([public(server).model_copy(update={"url": server.url("/moved.bin")})], tmp_path)


@pytest.mark.parametrize("ranges", [True, False])
def test_an_interrupted_file_goes_on_or_begins_anew(ranges, server, tmp_path):
    server.breaks_after, server.ranges = 500_000, ranges
    with pytest.raises(FetchError, match=r"data.bin: .*the same command goes on from there"):
        fetch_files([public(server)], tmp_path)
    part = tmp_path / "data.bin.part"
    kept = part.stat().st_size
    assert 0 < kept <= 500_000 and not (tmp_path / "data.bin").exists()
    assert fetch_files([public(server)], tmp_path)[0].path.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={kept}-"] and not part.exists()


def test_a_file_that_ends_before_its_length_goes_on(server, tmp_path):
    server.ends_after = 500_000
    with pytest.raises(FetchError, match=r"data.bin: ended after 500000 of 1280000 bytes; the same command goes on"):
        fetch_files([public(server)], tmp_path)
    assert fetch_files([public(server)], tmp_path)[0].path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=500000-"]


def test_a_server_that_packs_what_it_sends_is_not_measured_by_the_packed_length(server, tmp_path):
    server.packs, server.files["/data.bin"] = True, CONTENT
    assert fetch_files([public(server)], tmp_path)[0].path.read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch_files([public(server)], tmp_path)[0].path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("begun", [b"another version", b"?" * len(CONTENT), b"?" * (len(CONTENT) + 9)])
def test_a_part_of_another_version_is_thrown_away_and_the_file_brought_whole(begun, server, tmp_path):
    (tmp_path / "data.bin.part").write_bytes(begun)
    assert fetch_files([public(server)], tmp_path)[0].path.read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(begun)}-", None]


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    server.files["/data.bin"] = CONTENT[:-1] + b"?"
    expected = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(
        FetchError, match=rf"data.bin: expected sha256 {expected}, got .* \(1280000 bytes\); it is not kept"
    ):
        fetch_files([public(server)], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_no_such_file_and_no_server_are_told(server, tmp_path):
    with pytest.raises(FetchError, match=r"missing.bin: the server answered 404 Not Found"):
        fetch_files([public(server, "missing.bin")], tmp_path)
    nobody = public(server).model_copy(update={"url": "http://127.0.0.1:9/data.bin"})
    with pytest.raises(FetchError, match=r"data.bin: no connection, or it broke off \(ConnectionError\); what came is"):
        fetch_files([nobody], tmp_path)


def zipped(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(mode, *members):
    """members: (name, content), or a TarInfo as it is."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for member in members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member[0])
            if isinstance(member, tuple):
                info.size = len(member[1])
            archive.addfile(info, None if isinstance(member, tarfile.TarInfo) else io.BytesIO(member[1]))
    return buffer.getvalue()


def folder_entry(name):
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("set.zip", zipped(**{"images/": b"", "images/a.png": b"one", "b.txt": b"two"})),
        ("set.tar", tarred("w", folder_entry("images"), ("images/a.png", b"one"), ("b.txt", b"two"))),
        ("set.tar.gz", tarred("w:gz", ("images/a.png", b"one"), ("./b.txt", b"two"))),
        ("set.tgz", tarred("w:gz", ("images/a.png", b"one"), ("b.txt", b"two"))),
        ("set.tar.xz", tarred("w:xz", ("images/a.png", b"one"), ("b.txt", b"two"))),
    ],
)
def test_archives_are_unpacked_beside_themselves(name, content, server, tmp_path):
    server.files[f"/sub/{name}"] = content
    file = public(server, f"sub/{name}", content, unpack=True)
    fetch_files([file], tmp_path)
    assert (tmp_path / "sub/images/a.png").read_bytes() == b"one" and (tmp_path / "sub/b.txt").read_bytes() == b"two"
    (tmp_path / "sub/b.txt").unlink()
    assert fetch_files([file], tmp_path)[0].was_there  # and what was lost is unpacked again
    assert (tmp_path / "sub/b.txt").read_bytes() == b"two"


def test_a_single_packed_file_is_unpacked_under_its_name(server, tmp_path):
    packed = gzip.compress(CONTENT)
    server.files["/raw/images-idx3-ubyte.gz"] = packed
    fetch_files([public(server, "raw/images-idx3-ubyte.gz", packed, unpack=True)], tmp_path)
    assert (tmp_path / "raw/images-idx3-ubyte").read_bytes() == CONTENT


def test_stimuli_come_out_of_a_matlab_file_by_themselves(server, tmp_path):
    from scipy.io import savemat

    stimuli = np.empty((1, 1), [(name, object) for name in ("category", "human", "face", "animal", "natural", "image")])
    stimuli[0, 0] = ("face", 1, 1, 1, 1, np.full((2, 2, 3), 9, np.uint8))
    savemat(buffer := io.BytesIO(), {"stimuli_92objs": stimuli})
    server.files["/set.mat"] = buffer.getvalue()
    file = public(server, "set.mat", buffer.getvalue(), unpack="matlab_stimuli")
    fetch_files([file], tmp_path)
    head, row = (tmp_path / "stimuli.tsv").read_text().splitlines()
    assert head == "stimulus\tfile\tcategory\thuman\tface\tanimal\tnatural" and row.startswith(
        "stim01\tstimuli/stim01.png\tface"
    )
    (tmp_path / "stimuli" / "stim01.png").unlink()
    assert fetch_files([file], tmp_path)[0].was_there and (tmp_path / "stimuli" / "stim01.png").is_file()
    (spec_file,) = [file for file in load_brain_spec("kriegeskorte2008").files if file.unpack]
    assert spec_file.unpack == "matlab_stimuli"


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(**{"good.txt": b"1", "../evil.txt": b"2"})),
        ("a.zip", zipped(**{"good.txt": b"1", "/tmp/evil.txt": b"2"})),
        ("a.zip", zipped(**{"good.txt": b"1", "C:/evil.txt": b"2"})),
        ("a.tar", tarred("w", ("good.txt", b"1"), ("in/../../evil.txt", b"2"))),
        ("a.tar", tarred("w", ("good.txt", b"1"), ("..\\evil.txt", b"2"))),
    ],
)
def test_an_archive_that_leads_out_of_its_folder_is_refused_whole(name, content, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / name).write_bytes(content)
    with pytest.raises(FetchError, match=rf"{name}: '.*evil.txt' leads out of .*; nothing was unpacked"):
        unpack(folder / name, folder, GIB)
    assert [path.name for path in folder.iterdir()] == [name] and [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_an_archive_are_refused(kind, tmp_path):
    (tmp_path / "a.tar").write_bytes(tarred("w", ("good.txt", b"1"), link("evil", "../../etc", kind)))
    with pytest.raises(FetchError, match=r"a.tar: 'evil' is neither a file nor a folder; nothing was unpacked"):
        unpack(tmp_path / "a.tar", tmp_path, GIB)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_a_link_that_is_there_already_does_not_lead_out(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "images").symlink_to(outside)
    (folder / "a.zip").write_bytes(zipped(**{"images/evil.txt": b"1"}))
    with pytest.raises(FetchError, match=r"'images/evil.txt' leads out of"):
        unpack(folder / "a.zip", folder, GIB)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.zip", zipped(a=bytes(3000))),
        ("a.tar.gz", tarred("w:gz", ("a", bytes(3000)))),
        ("a.gz", gzip.compress(bytes(3000))),
    ],
    ids=["zip", "tar.gz", "gz"],  # not the bytes: they hold the time, and pytest's workers must agree on names
)
def test_an_archive_beyond_its_limit_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FetchError, match=rf"{name}: more than .* GiB unpacked; raise max_unpacked_gib"):
        unpack(tmp_path / name, tmp_path, 2999)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    unpack(tmp_path / name, tmp_path, 3000)
    assert (tmp_path / "a").stat().st_size == 3000


@pytest.mark.parametrize(
    ("name", "content", "files"),
    [
        ("a.zip", zipped(**{str(k): b"" for k in range(50)}), True),
        ("a.tar.gz", tarred("w:gz", *((str(k), b"") for k in range(50))), True),
        ("a.tar.gz", tarred("w:gz", *(folder_entry(str(k)) for k in range(50))), False),
    ],
    ids=["zip", "tar.gz", "folders"],
)
def test_very_many_small_files_count_as_large_ones(name, content, files, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FetchError, match=rf"{name}: more than .* GiB unpacked"):
        unpack(tmp_path / name, tmp_path, 48 * 4096)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    unpack(tmp_path / name, tmp_path, 49 * 4096)
    assert len(list(tmp_path.iterdir())) == 1 + (50 if files else 0)


def bomb(kind):
    """64 MiB of zeros in a few KiB, whose archive tells 10 bytes."""
    zeros = bytes(1 << 26)
    if kind == "tar.gz":
        content = bytearray(gzip.decompress(tarred("w:gz", ("a", zeros))))
        content[124:136] = b"00000000012\0"  # octal; the zeros after it read as the archive's end
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        return gzip.compress(bytes(content))
    content = zipped(a=zeros)
    for header, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(header) + place
        content = content[:at] + (10).to_bytes(4, "little") + content[at + 4 :]
    return content


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_that_lies_about_a_size_gives_no_more_than_it_told(kind, tmp_path):
    archive = tmp_path / f"a.{kind}"
    archive.write_bytes(bomb(kind))
    assert archive.stat().st_size < 1 << 18
    if kind == "zip":  # its checksum is of the whole
        with pytest.raises(FetchError, match=r"a.zip: cannot be unpacked \(.*CRC"):
            unpack(archive, tmp_path, GIB)
        assert [path.name for path in tmp_path.iterdir()] == [archive.name]
    else:
        unpack(archive, tmp_path, GIB)
        assert (tmp_path / "a").stat().st_size == 10


def test_a_sparse_file_counts_as_long_as_it_gets(tmp_path):
    info = tarfile.TarInfo("holes")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 40)}
    info.size = 512
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b"1\n0\n1\n".ljust(512, b"\0")))
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    with pytest.raises(FetchError, match=r"a.tar: more than 1 GiB unpacked"):
        unpack(tmp_path / "a.tar", tmp_path, GIB)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("Cat.png", "cat.png"), "'Cat.png' and 'cat.png' are one file where capitals do not count"),
        (("a/x", "A/X"), "'a/x' and 'A/X' are one file where capitals do not count"),
        (("caf\u00e9", "cafe\u0301"), "are one file where capitals do not count"),
        (("x", "./x"), "'x' and './x' are one file"),
        (("a", "a/b"), "'a' is a file and a folder"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_are_one_file_somewhere_are_refused(kind, names, message, tmp_path):
    content = zipped(**dict.fromkeys(names, b"1")) if kind == "zip" else tarred("w", *((name, b"1") for name in names))
    (tmp_path / f"set.{kind}").write_bytes(content)
    with pytest.raises(FetchError, match=rf"{message}.*nothing was unpacked"):
        unpack(tmp_path / f"set.{kind}", tmp_path, GIB)
    assert [path.name for path in tmp_path.iterdir()] == [f"set.{kind}"]


@pytest.mark.parametrize(
    ("name", "content", "there"),
    [
        ("a.zip", zipped(new=b"1", mine=b"theirs"), b"my own work"),
        ("a.tar", tarred("w", ("new", b"1"), ("mine", b"theirs")), b"my own work"),
        ("mine.gz", gzip.compress(b"theirs"), b"my own"),  # of the same length: nothing but the content tells
        ("mine.gz", gzip.compress(b"theirs"), b"my own work"),
        ("mine.gz", gzip.compress(b"theirs"), b"the"),
    ],
    ids=["zip", "tar", "gz", "gz longer", "gz shorter"],
)
def test_files_that_are_there_are_never_overwritten(name, content, there, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "mine").write_bytes(there)
    with pytest.raises(FetchError, match=rf"mine: is there and differs from what is in {name}; nothing is overwritten"):
        unpack(tmp_path / name, tmp_path, GIB)
    assert (tmp_path / "mine").read_bytes() == there and not (tmp_path / "new").exists()
    (tmp_path / "mine").write_bytes(b"theirs")
    unpack(tmp_path / name, tmp_path, GIB)
    assert (tmp_path / "mine").read_bytes() == b"theirs"


def test_an_interrupted_unpacking_leaves_whole_files_and_goes_on(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(zipped(first=b"1" * 10, second=b"2" * 3 * CHUNK))
    read, reads = zipfile.ZipExtFile.read, []

    def interrupted(self, n=-1):
        reads.append(n)
        if len(reads) == 5:  # within the second file
            raise KeyboardInterrupt
        return read(self, n)

    with monkeypatch.context() as patched:
        patched.setattr(zipfile.ZipExtFile, "read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            unpack(tmp_path / "a.zip", tmp_path, GIB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "first"]
    unpack(tmp_path / "a.zip", tmp_path, GIB)
    assert (tmp_path / "second").read_bytes() == b"2" * 3 * CHUNK


def test_an_archive_in_an_archive_stays_packed(tmp_path):
    inner = zipped(**{"../evil.txt": b"1"})
    (tmp_path / "a.zip").write_bytes(zipped(**{"inner.zip": inner}))
    unpack(tmp_path / "a.zip", tmp_path, GIB)
    assert (tmp_path / "inner.zip").read_bytes() == inner
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "inner.zip"]


def test_an_archive_with_a_password_or_packed_in_an_unknown_way_is_told(tmp_path):
    content = zipped(a=b"1")
    for place, value in ((6, 1), (8, 99)):  # of the entry: its flags, its method
        changed = bytearray(content)
        changed[place] = value
        changed[content.index(b"PK\x01\x02") + place + 2] = value
        (tmp_path / "a.zip").write_bytes(changed)
        with pytest.raises(FetchError, match=r"a.zip: cannot be unpacked \(.*\); delete it and fetch it again"):
            unpack(tmp_path / "a.zip", tmp_path, GIB)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.gz"])
def test_a_damaged_archive_is_told(name, tmp_path):
    (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(FetchError, match=rf"{name}: cannot be unpacked \(.*\); delete it and fetch it again"):
        unpack(tmp_path / name, tmp_path, GIB)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"path": "../a"}, "expected a path below the data set's folder, got '../a'"),
        ({"path": "/a"}, "expected a path below the data set's folder"),
        ({"sha256": None}, "expected a checksum, sha256 .or md5, where the publisher tells no other"),
        ({"sha256": None, "md5": "0" * 32, "url": "http://x.org/a"}, "url: over http a file needs its sha256"),
        ({"sha256": "abc"}, "should match pattern"),
        ({"url": "file:///etc/passwd"}, "should match pattern"),
        ({"unpack": True}, "unpack: expected a path that ends with one of .zip"),
        ({"unpack": "matlab_stimuli"}, "unpack: expected a path that ends with one of .mat, got 'a'"),
    ],
)
def test_a_spec_that_says_something_else_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        PublicFile.model_validate({"url": "https://x.org/a", "sha256": "0" * 64, "path": "a", **changed})


def run(*words):
    return CliRunner().invoke(app, ["fetch", *map(str, words)])


@pytest.fixture
def spec_file(server, tmp_path):
    """A data spec of images with one public file, in a file of its own."""
    archive = zipped(**{"cat/a.png": b"one"})
    server.files["/pets.zip"] = archive
    file = public(server, "pets.zip", archive, unpack=True).model_dump(exclude_defaults=True)
    path = tmp_path / "pets.yaml"
    path.write_text(yaml.safe_dump({"name": "pets", "format": "image_folder", "folder": "pets", "files": [file]}))
    return path


def test_the_command_brings_the_files_of_a_spec(spec_file, server, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path / "data"))
    first = run(spec_file)
    assert first.exit_code == 0, first.output
    assert (tmp_path / "pets/cat/a.png").read_bytes() == b"one"
    assert f"pets: 1 files in {tmp_path / 'pets'}, checked; 0 were there" in first.output
    assert "checked; 1 were there" in run(spec_file).output
    server.files["/pets.zip"] = b"changed"
    (tmp_path / "pets/pets.zip").unlink()
    third = run(spec_file)
    assert third.exit_code == 1 and "expected sha256" in third.stderr and "it is not kept" in third.stderr


def assert_refused_and_nothing_written(spec_file, home, told):
    result = run(spec_file)
    assert result.exit_code == 2 and told in result.stderr.replace("\n", " "), result.output
    assert not (home / "x").exists() and not (home / "pets.zip").exists()


@pytest.mark.parametrize("format_", ["image_folder", "mnist", "brain"])
@pytest.mark.parametrize("folder", ["HOME", "..", "data/../.."])
def test_a_spec_from_elsewhere_does_not_say_where_files_are_written(folder, format_, server, tmp_path, monkeypatch):
    """Else it could bring a .bashrc into somebody's home."""
    home, downloads = tmp_path / "home", tmp_path / "home/downloads"
    downloads.mkdir(parents=True)
    monkeypatch.setenv("BRAINRDL_DATA", str(home / "data"))
    brain = {"kind": "brain", "name": "x", "data": {"format": "rdms", "files": [{"file": "a.h5"}]}}
    brain["stimuli"] = {"ids": "{number}", "n": 3}
    images = {"name": "x", "format": format_, "size": [2, 2], "classes": ["a"]}
    raw = brain if format_ == "brain" else images if format_ == "mnist" else {"name": "x", "format": format_}
    file = public(server, "x", server.files.setdefault("/x", b"evil")).model_dump(exclude_defaults=True)
    path = downloads / "x.yaml"
    path.write_text(yaml.safe_dump({**raw, "folder": str(home) if folder == "HOME" else folder, "files": [file]}))
    assert_refused_and_nothing_written(path, home, "folder: expected one below")
    told = run(path, "--into", tmp_path / "chosen")
    assert told.exit_code == 0, told.output
    assert (tmp_path / "chosen/x").read_bytes() == b"evil" and not (home / "x").exists()


def test_the_command_takes_another_data_folder_and_tells_how_to_use_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("BRAINRDL_DATA", str(tmp_path / "data"))
    spec = load_spec("mnist").model_copy(update={"files": (public(server),)})
    monkeypatch.setattr("brainrdl.data.spec.load_spec", lambda name: spec)
    told = run("mnist", "--into", tmp_path / "other")
    assert (tmp_path / "other/data.bin").read_bytes() == CONTENT
    assert f"export BRAINRDL_DATA={tmp_path / 'other'}" in told.output


@pytest.mark.parametrize("name", ["nsd", "things_fmri", "bold5000", "algonauts2023", "digits"])
def test_where_terms_are_to_be_accepted_the_publishers_way_is_told_and_nothing_brought(name, tmp_path):
    told = run(name, "--into", tmp_path)
    assert told.exit_code == 0 and f"{name}: nothing is downloaded" in told.output
    spec = load_brain_spec(name) if name in spec_names("brain") else load_spec(name)
    assert spec.instructions.strip() in told.output
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_gets_the_nearest_and_all(tmp_path):
    told = run("things_fmr", "--into", tmp_path)
    assert told.exit_code == 2
    assert "data spec 'things_fmr' is no file and no built-in; did you mean 'things_fmri'? built in: " in told.stderr
    assert "cifar10" in told.stderr and "nsd" in told.stderr


def test_every_built_in_spec_has_something_to_fetch_or_to_tell():
    specs = [*map(load_spec, spec_names()), *map(load_brain_spec, spec_names("brain"))]
    assert all(spec.files or spec.instructions for spec in specs), [
        s.name for s in specs if not (s.files or s.instructions)
    ]
    for spec in specs:
        assert len({file.path for file in spec.files}) == len(spec.files)


def test_every_file_of_a_built_in_spec_is_checked_by_sha256_and_has_a_size():
    specs = [*map(load_spec, spec_names()), *map(load_brain_spec, spec_names("brain"))]
    files = [file for spec in specs for file in spec.files]
    assert len(files) > 100
    assert [file.url for file in files if file.sha256 is None or file.size is None] == []
    assert [file.url for file in files if not file.url.startswith("https:")] == []


def test_torchvisions_own_checksums_are_in_the_specs():
    from torchvision.datasets import CIFAR10, CIFAR100, MNIST

    assert {(file.url, file.md5) for file in load_spec("mnist").files} == {
        (MNIST.mirrors[0] + name, md5) for name, md5 in MNIST.resources
    }
    for cifar, name in ((CIFAR10, "cifar10"), (CIFAR100, "cifar100")):
        (file,) = load_spec(name).files
        assert (file.url, file.md5, file.unpack) == (cifar.url, cifar.tgz_md5, True)


@pytest.mark.parametrize("name", ["kriegeskorte2008", "cichy2014", "haxby2001"])
def test_the_real_files_have_the_checksums_of_the_specs(name, real_data):
    folder = real_data(name) / load_brain_spec(name).folder
    there = [file for file in load_brain_spec(name).files if (folder / file.path).is_file()]
    assert there
    for file in there:
        content = (folder / file.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256 and len(content) == file.size, file.path


def test_files_are_part_of_the_schema():
    assert {"files", "instructions"} <= set(DataSpec.model_json_schema()["properties"])
