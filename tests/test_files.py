"""A file is written whole or not at all, and by one module only."""

import ast
import os
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import ada3d_fx
from ada3d_fx import files

PACKAGE = Path(ada3d_fx.__file__).parent
SOURCES = [
    *PACKAGE.rglob("*.py"),
    *(PACKAGE.parent / "tools").glob("*.py"),
    PACKAGE.parent / "setup.py",
]


ALONE = """
import runpy, sys, types
files = types.SimpleNamespace(**runpy.run_path(sys.argv.pop(1)))  # without torch, which takes time
"""


def script(source, *arguments):
    """The command of a process of its own in which `files` is the module."""
    return [sys.executable, "-c", ALONE + source, files.__file__, *map(str, arguments)]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "report.json"
    files.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), files.whole(target) as unfinished:
        unfinished.write_text("ne")
        raise ZeroDivisionError
    assert target.read_text() == "old" and names(tmp_path) == ["report.json"]


def test_a_folder_is_made_and_the_ending_kept(tmp_path):
    with files.whole(tmp_path / "a" / "b.png") as unfinished:
        assert unfinished.suffix == ".png"
        unfinished.write_bytes(b"1")
    assert (tmp_path / "a" / "b.png").read_bytes() == b"1"


KILLED = """
import os, signal
with files.whole(sys.argv[1]) as unfinished:
    unfinished.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_the_old_file(tmp_path):
    target = tmp_path / "report.json"
    files.write_text(target, "old ²")
    subprocess.run(script(KILLED, target))
    assert target.read_text(encoding="utf-8") == "old ²"
    (left,) = [path for path in tmp_path.iterdir() if path != target]
    files.write_text(target, "new")  # might be another process's that still writes
    assert left.exists()
    old = time.time() - 2 * files.LEFT_BEHIND
    os.utime(left, (old, old))
    files.write_text(target, "newer")
    assert target.read_text() == "newer" and not left.exists()


KILLED_WITHIN = """
import sys
from ada3d_fx import files
import os, signal
with files.folder_beside(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_folder_beside_goes_whatever_happens(tmp_path):
    target = tmp_path / "deep" / "network.xml"
    with files.folder_beside(target) as folder:
        (folder / "network.bin").write_bytes(b"1")
        assert folder.parent == target.parent and folder.name.startswith(".network.")
    with pytest.raises(ZeroDivisionError), files.folder_beside(target):
        1 / 0  # noqa: B018
    assert list(target.parent.iterdir()) == []
    subprocess.run(script(KILLED_WITHIN, target))
    (left,) = target.parent.iterdir()
    old = time.time() - 2 * files.LEFT_BEHIND
    for age, there in ((time.time(), True), (old, False)):
        os.utime(left, (age, age))
        with files.folder_beside(target):
            assert left.exists() == there
    assert list(target.parent.iterdir()) == []
    (tmp_path / "file").write_text("no folder")
    with (
        pytest.raises(OSError, match="no folder"),
        files.folder_beside(tmp_path / "file" / "x.xml"),
    ):
        pass


def test_a_new_file_has_the_permissions_of_any_and_an_old_one_its_own(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_text(tmp_path / "new", "1")
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
        (tmp_path / "new").chmod(0o606)
        files.write_text(tmp_path / "new", "2")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o606


def test_a_link_stays_and_its_target_is_written(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.json").symlink_to("far/real.json")
    for text in ("first", "second"):
        files.write_text(tmp_path / "link.json", text)
        assert (tmp_path / "link.json").is_symlink()
        assert (tmp_path / "far" / "real.json").read_text() == text
    assert names(tmp_path) == ["far", "link.json"] and names(tmp_path / "far") == ["real.json"]


def test_a_pipe_is_given_all_bytes_and_stays_a_pipe(tmp_path):
    pipe, got = tmp_path / "pipe.json", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()), daemon=True)
    reader.start()
    files.write_text(pipe, "all of it")
    reader.join(10)
    assert got == [b"all of it"] and stat.S_ISFIFO(pipe.stat().st_mode)
    files.write_text("/dev/null", "gone")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


@pytest.mark.parametrize(
    "text, left",
    [
        ("", ""),
        ("half", ""),
        ("one\n", "one\n"),
        ("one\ntwo", "one\n"),
        ("one\n" + 200_000 * "x", "one\n"),
        (200_000 * "x", ""),
        ("\n\n\0\0", "\n\n"),
    ],
)
def test_a_journal_is_cut_off_behind_its_last_whole_line(text, left, tmp_path):
    path = tmp_path / "journal"
    path.write_text(text)
    files.drop_unfinished_line(path)
    assert path.read_text() == left


HOLDS = """
import time
with files.locked(sys.argv[1]) as holder:
    print(holder, flush=True)
    time.sleep(60)
"""


def test_a_lock_is_held_until_its_process_ends(tmp_path):
    path = tmp_path / "lock"
    other = subprocess.Popen(script(HOLDS, path), stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"None\n"
        with files.locked(path) as holder:
            assert holder == other.pid
    finally:
        other.kill()
        other.wait()
    with files.locked(path) as holder:
        assert holder is None and path.read_text() == str(os.getpid())


TO_STDOUT = """
print("before")
files.write_text("/dev/stdout", "file\\n")
files.write_text("/dev/fd/1", "again\\n")
print("after")
"""


@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_standard_output_is_a_file_like_others(tmp_path, kind):
    with (tmp_path / "out.txt").open("wb") as out:
        stdout = out if kind == "file" else subprocess.PIPE
        buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        done = subprocess.run(script(TO_STDOUT), stdout=stdout, check=True, env=buffered)
    written = done.stdout if kind == "pipe" else (tmp_path / "out.txt").read_bytes()
    assert written == b"before\nfile\nagain\nafter\n"


def test_a_name_of_the_greatest_length(tmp_path):
    for name in ("n" * 250 + ".json", "\u00e9" * 120 + ".json"):
        files.write_text(tmp_path / name, "1")
        assert names(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_a_name_that_is_no_utf8_is_written_as_its_bytes(tmp_path):
    files.write_text(tmp_path / "a", os.fsdecode(b"caf\xe9.mp4"))
    assert (tmp_path / "a").read_bytes() == b"caf\xe9.mp4"


# What cannot be written is named


def refused(path, words, error=OSError):
    for write in (files.check, lambda path: files.write_text(path, "1")):
        with pytest.raises(error, match=words) as raised:
            write(path)
        assert str(path) in str(raised.value.filename) or "\0" in str(path)


def test_folders_and_files_as_folders_are_refused(tmp_path):
    refused(tmp_path, "a folder is there", IsADirectoryError)
    (tmp_path / "file").write_text("1")
    refused(tmp_path / "file" / "a.json", "is no folder", NotADirectoryError)
    refused(tmp_path / "a\0b", "NUL")
    assert names(tmp_path) == ["file"]


UNPRIVILEGED = """
import os
if not os.getuid():
    os.setuid(65534)
for path in sys.argv[1:]:
    for write in (files.check, lambda path: files.write_text(path, "1")):
        try:
            write(path)
        except PermissionError as error:
            print(error)
"""


@pytest.fixture
def open_folder():
    """A folder that another user may enter, unlike pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def test_what_is_write_protected_is_left_alone(open_folder):
    """In a process of its own, as nothing is protected from the superuser."""
    folder = open_folder / "closed"
    folder.mkdir()
    (open_folder / "kept.json").write_text("kept")
    (open_folder / "kept.json").chmod(0o444)
    folder.chmod(0o555)
    paths = [str(open_folder / "kept.json"), str(folder / "a.json"), str(folder / "b" / "a.json")]
    done = subprocess.run(script(UNPRIVILEGED, *paths), capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 6 and all(repr(path) in "".join(lines) for path in paths), done.stderr
    assert sum("write-protected" in line for line in lines) == 2
    assert sum("is not writable" in line for line in lines) == 4
    assert (open_folder / "kept.json").read_text() == "kept" and not names(folder)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    """A limit of a file's size stands for the disk: writing fails part-way there too."""
    target = tmp_path / "report.json"
    files.write_text(target, "old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError) as raised:
            files.write_text(target, "x" * 10_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert raised.value.filename == str(target) and raised.value.strerror
    assert target.read_text() == "old" and names(tmp_path) == ["report.json"]
    with pytest.raises(OSError, match="No space left") as raised:
        files.write_text("/dev/full", "1")
    assert raised.value.filename == "/dev/full"


def test_an_error_of_another_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError) as raised, files.whole(tmp_path / "a"):
        (tmp_path / "other").read_text()
    assert raised.value.filename == str(tmp_path / "other") and not names(tmp_path)


def test_threads_that_write_one_file_leave_one_of_theirs(tmp_path):
    target, texts = tmp_path / "a.json", [str(i) * 5000 for i in range(8)]
    threads = [
        threading.Thread(target=lambda t=t: [files.write_text(target, t) for _ in range(5)])
        for t in texts
    ]
    for thread in threads:
        thread.start()
    seen = set()
    while any(thread.is_alive() for thread in threads):
        if target.exists():
            seen.add(target.read_text())
    assert seen | {target.read_text()} <= set(texts) and names(tmp_path) == ["a.json"]


# No other module writes files, and every text has its encoding

WRITES = {"write_text", "write_bytes", "savefig", "to_csv", "to_json", "tofile", "imwrite"}
SAVES = {"save", "savez", "savez_compressed", "savetxt", "dump", "copy", "copyfile", "move",
         "rename", "replace", "touch"}  # fmt: skip
SAVERS = {"torch", "np", "numpy", "json", "pickle", "shutil", "os", "mmengine", "pictures", "image"}
# File and call, and why it is no result that could be half-written.
EXCEPTIONS = {
    ("files.py", "*"): "it is what the others write with",
    (
        "videos/probe.py",
        "os.fdopen(os.dup(1), 'w')",
    ): "a pipe to the process that started this one",
    (
        "timing/peak_memory.py",
        "Path('/proc/self/clear_refs').write_text('5', encoding='ascii')",
    ): "a switch of Linux for this process, no file",
    ("export.py", "os.replace(file, path)"): "a whole file, out of `files.folder_beside`",
    ("export.py", "os.replace(file.with_suffix('.bin'), path.with_suffix('.bin'))"): "the same",
    ("export.py", "description.to_json()"): "a text in memory",
    ("exporting/writers.py", "description.to_json()"): "a text in memory",
}


def receiver(node):
    """`torch` of `torch.save(...)`, `pictures` of `pictures[0].save(...)`; '' of what has no name."""
    while isinstance(node, (ast.Attribute, ast.Subscript, ast.Call)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def arguments(call):
    return [*call.args, *(keyword.value for keyword in call.keywords)]


def within_whole(call, parents):
    """Whether a call writes to what `files.whole(...) as NAME` gave, or into memory."""
    inner = {name.id for value in arguments(call) for name in ast.walk(value)
             if isinstance(name, ast.Name)}  # fmt: skip
    inner.add(receiver(call.func))
    node = call
    while node in parents:
        node = parents[node]
        if isinstance(node, ast.With):
            for item in node.items:
                given = ast.unparse(item.context_expr).startswith("files.whole(")
                if given and item.optional_vars.id in inner:
                    return True
        if isinstance(node, ast.FunctionDef):
            made = [part for part in ast.walk(node) if isinstance(part, ast.Assign)]
            return any(
                ast.unparse(part.value).startswith("io.") and part.targets[0].id in inner
                for part in made
                if isinstance(part.targets[0], ast.Name)
            )
    return False


def bare_writes(source):
    """The calls that write a file that might be left half-written, as text."""
    tree = ast.parse(source)
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        owner = receiver(call.func) if isinstance(call.func, ast.Attribute) else ""
        words = [v.value for v in arguments(call) if isinstance(v, ast.Constant)]
        modes = [word for word in words if isinstance(word, str) and 0 < len(word) <= 3]
        opened = name in ("open", "fdopen") and any(set(mode) & set("wax+") for mode in modes)
        saved = name in SAVES and owner in SAVERS
        bare = (name == "dump" and not owner) or (name == "touch")
        written = name in WRITES and owner != "files"
        if (opened or saved or bare or written) and not within_whole(call, parents):
            yield ast.unparse(call)


def encodings_missing(source):
    """The calls that read or write text in an encoding that depends on the locale, as text."""
    for call in [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        keywords = {keyword.arg for keyword in call.keywords}
        words = [v.value for v in arguments(call) if isinstance(v, ast.Constant)]
        binary = any(isinstance(word, str) and "b" in word and len(word) <= 3 for word in words)
        own = not isinstance(call.func, ast.Attribute) or receiver(call.func) not in (
            "av",
            "Image",
            "tarfile",
        )
        text = name in ("read_text", "write_text") and receiver(call.func) not in (
            "files",
            "reading",
        )
        text |= name == "open" and own and not binary and receiver(call.func) != "os"
        text |= bool(keywords & {"text", "universal_newlines"}) and name in ("run", "Popen")
        if text and "encoding" not in keywords and not (name == "read_text" and call.args[1:]):
            yield ast.unparse(call)


def found(search):
    for path in SOURCES:
        inside = path.is_relative_to(PACKAGE)
        name = path.relative_to(PACKAGE if inside else PACKAGE.parent).as_posix()
        for call in search(path.read_text(encoding="utf-8")):
            if not {(name, "*"), (name, call)} & set(EXCEPTIONS):
                yield f"{name}: {call}"


def test_no_other_module_writes_files():
    assert list(found(bare_writes)) == []


def test_every_text_names_its_encoding():
    assert list(found(encodings_missing)) == []


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text(text)",
        "Path(out, 'a').write_bytes(data)",
        "open(path, 'w')",
        "path.open(mode='a')",
        "av.open(str(path), 'w', format='mp4')",
        "figure.savefig(path, dpi=110)",
        "json.dump(report, file)",
        "torch.save(model.state_dict(), path)",
        "np.savez(path, a=a)",
        "pictures[0].save(path, save_all=True)",
        "dump(results, self.out_file_path)",
        "shutil.copy(a, b)",
        "with files.whole(path) as unfinished:\n    torch.save(a, other)",
        "(folder / 'done').touch()",
    ],
)
def test_a_bare_write_is_seen(line):
    assert list(bare_writes(line))


@pytest.mark.parametrize(
    "line",
    [
        "files.write_text(path, text)",
        "with files.whole(path) as unfinished:\n    torch.save(a, unfinished)",
        "with files.whole(path) as p:\n    with p.open('wb') as file:\n        file.write(a)",
        "def f():\n    memory = io.BytesIO()\n    torch.save(a, memory)",
        "path.open('rb')",
        "text.replace('a', 'b')",
    ],
)
def test_a_whole_write_is_let_through(line):
    assert not list(bare_writes(line))


def test_a_text_without_encoding_is_seen():
    for line in ("p.read_text()", "open(p)", "p.open('w', newline='')", "run(a, text=True)"):
        assert list(encodings_missing(line))
    for line in ("p.read_text(encoding='utf-8')", "open(p, 'rb')", "run(a)", "os.open(p, 0)"):
        assert not list(encodings_missing(line))


def test_exceptions_are_still_needed():
    for name, call in EXCEPTIONS:
        calls = list(bare_writes((PACKAGE / name).read_text(encoding="utf-8")))
        assert calls if call == "*" else call in calls, (name, call)


def test_no_two_test_modules_have_one_name():
    """Pytest imports them by their names, so the second of two would not be collected."""
    modules = [path.stem for path in Path(__file__).parent.rglob("*.py")]
    assert sorted(set(modules)) == sorted(modules)
