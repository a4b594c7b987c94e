"""Builds the one bundle of all functions of the template: handlers, package, dependencies, bytecode.
With --local it builds the one of infra/local.yaml, which has the FastAPI application besides.
With --unpacked it puts the files of the bundle into a folder, which `sam build` asks for.

The same sources give the same bytes: names sorted, times and modes fixed, wheels from the hash lock.
Bytecode is trusted unchecked, so it must be of the runtime's minor version. A machine without that Python
builds a bundle without bytecode: it works, and compiles at each cold start.
"""

from __future__ import annotations

import argparse
import fcntl
import fnmatch
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
WHEELS = {"arm64": "aarch64", "x86_64": "x86_64"}  # Lambda's name of an architecture: the wheels'
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")  # Amazon Linux 2023: 2.34
HOME_ONLY = (
    "kimi_gateway/cli/*",
    "kimi_gateway/edge/home/*",
    "kimi_gateway/observe/alerts.py",
    "kimi_gateway/observe/exposition.py",
    "kimi_gateway/observe/otlp/*",
    "kimi_gateway/observe/shared.py",
    "kimi_gateway/observe/terminal.py",
    "kimi_gateway/private_file.py",
    "kimi_gateway/providers/kimi_web/*",
    "kimi_gateway/storage/*/moving.py",
)
NEEDLESS = (
    *("*.pyi", "*.pyx", "*.pxd", "*.c", "*.h", "*.pyc", "*/py.typed", "*/tests/*", "*/swagger_ui/*"),
    *("*/mypy.py", "anyio/_backends/_trio.py"),  # a type checker's plugins, and another event loop's backend
    *("*.data/scripts/*", "*.data/data/*", "*.dist-info/sboms/*"),
    # Files that installers write and that differ between machines
    *(f"*.dist-info/{name}" for name in ("RECORD", "WHEEL", "INSTALLER", "REQUESTED", "direct_url.json")),
)
EXECUTABLE = ("stream",)
LARGEST = 9 * 2**20  # bytes of the zip
WITHOUT_BYTECODE = (
    "The bundle is built without bytecode. It works, but each cold start compiles the code\n"
    "and takes about twice as long (docs/benchmarks.md, Cold start)."
)
TASK_ROOT = "/var/task"  # the path on Lambda, so that tracebacks name existing files


class Unbuildable(Exception):
    """A missing requirement, and how to get it."""


class NoInterpreter(Unbuildable): ...


def interpreter(minor: str) -> str:
    """A Python of this minor version, which compiles for it."""
    named = os.environ.get("PYTHON" + minor.replace(".", ""), "")
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = [named, sys.executable, f"python{minor}"]
    candidates += [str(found) for found in sorted(pyenv.glob(f"{minor}.*/bin/python{minor}"), reverse=True)]
    for candidate in filter(None, candidates):
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        try:
            done = subprocess.run([candidate, "-c", code], capture_output=True, text=True)  # noqa: S603
        except OSError:
            continue
        if done.stdout.strip() == minor:
            return candidate
    variable = "PYTHON" + minor.replace(".", "")
    raise NoInterpreter(
        f"Bytecode for Lambda's python{minor} needs a Python {minor}.\n"
        f"None is on PATH, in ${variable} or under pyenv.\n"
        f"Install one (uv python install {minor}, pyenv install {minor}, or your system's package)\n"
        f"and name it: {variable}=/path/to/python{minor} scripts/build"
    )


def wheels(lock: Path, arch: str, minor: str, into: Path) -> list[Path]:
    """The lock's wheels for Lambda, checked against its hashes; kept for the next build."""
    done = into / f"of-{hashlib.sha256(lock.read_bytes()).hexdigest()[:16]}"
    if not done.exists():
        shutil.rmtree(into, ignore_errors=True)
        platforms = [argument for name in PLATFORMS for argument in ("--platform", f"{name}_{WHEELS[arch]}")]
        command = [
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--require-hashes", "--only-binary", ":all:", "--implementation", "cp", "--python-version", minor,
            *platforms, "--dest", str(into), "--requirement", str(lock),
        ]  # fmt: skip
        if subprocess.run(command).returncode:  # noqa: S603
            raise Unbuildable(f"The wheels of {lock.name} could not be had; pip's message is above.")
        done.touch()
    return sorted(into.glob("*.whl"))


def needless(name: str, left_out: tuple[str, ...] = ()) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in (*NEEDLESS, *left_out))


def unpack(wheel: Path, tree: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            place = name.partition(".data/purelib/")[2] or name.partition(".data/platlib/")[2] or name
            if not name.endswith("/") and not needless(place):
                target = tree / place
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))


def copy_sources(tree: Path, left_out: tuple[str, ...]) -> None:
    functions = ROOT / "functions"
    for file in sorted(functions.rglob("*")):
        name = file.relative_to(functions).as_posix()
        if file.is_file() and not needless(name, left_out) and "egg-info" not in name:
            target = tree / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)


def compile_all(python: str, tree: Path) -> None:
    """One process with a fixed order and hash seed; otherwise the bytes of equal code may differ."""
    command = [
        python, "-m", "compileall", "-q", "-f", "-j", "1", "--invalidation-mode", "unchecked-hash",
        "-s", str(tree), "-p", TASK_ROOT, str(tree),
    ]  # fmt: skip
    environ = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")}
    if subprocess.run(command, env=environ).returncode:  # noqa: S603
        raise Unbuildable("Not everything compiles; compileall's message is above.")


def pack(tree: Path, target: Path) -> None:
    names = sorted(file.relative_to(tree).as_posix() for file in tree.rglob("*") if file.is_file())
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # modes are Unix's
            entry.external_attr = (0o100755 if name in EXECUTABLE else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (tree / PurePosixPath(name)).read_bytes())


def build(arch: str, minor: str, target: Path, local: bool = False) -> bool:
    """Whether it has bytecode."""
    try:
        python = interpreter(minor)
    except NoInterpreter as exc:
        python = ""
        print(f"{exc}\n{WITHOUT_BYTECODE}", file=sys.stderr)
    work = ROOT / "build" / f"{arch}-{minor}{'-local' * local}"
    lock = ROOT / "requirements" / ("cloud.txt" if local else "lambda.txt")
    tree = work / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    for wheel in wheels(lock, arch, minor, work / "wheels"):
        unpack(wheel, tree)
    copy_sources(tree, () if local else HOME_ONLY)
    if local:
        shutil.copyfile(ROOT / "infra" / "local.py", tree / "local.py")
    if python:
        compile_all(python, tree)
    pack(tree, target)
    if target.stat().st_size > LARGEST and not local:
        raise Unbuildable(f"{target} has {target.stat().st_size} bytes; {LARGEST} is the most")
    return bool(python)


def sources(arch: str, minor: str) -> str:
    """A digest of everything that decides the content of the bundle."""
    try:
        python = interpreter(minor)
    except NoInterpreter:
        python = ""
    digest = hashlib.sha256(f"{arch} {minor} {python}".encode())
    for place in (ROOT / "functions", ROOT / "infra" / "build.py", ROOT / "requirements" / "lambda.txt"):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file() and not needless(file.as_posix()):
                digest.update(f"\n{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()


@contextmanager
def alone() -> Iterator[None]:
    """Lock the folder, because `sam build --parallel` runs several builds at once."""
    (ROOT / "build").mkdir(exist_ok=True)
    with (ROOT / "build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def unpacked(arch: str, minor: str, folder: Path) -> None:
    """Put the bundle's files with their modes into `folder`. The bundle is built only if the sources
    changed."""
    work = ROOT / "build" / f"{arch}-{minor}"
    target, mark = work / "bundle.zip", work / "bundle.of"
    with alone():
        now = sources(arch, minor)
        if not (target.exists() and mark.exists() and mark.read_text("utf-8") == now):
            mark.unlink(missing_ok=True)
            build(arch, minor, target)
            mark.write_text(now, "utf-8")
    with zipfile.ZipFile(target) as archive:
        for entry in archive.infolist():
            archive.extract(entry, folder)
            (folder / entry.filename).chmod(entry.external_attr >> 16 & 0o777)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/build", description=__doc__)
    parser.add_argument("--local", action="store_true", help="for sam local, and this machine's processor")
    parser.add_argument("--arch", choices=WHEELS, help="arm64 as the template's Architectures, if not named")
    parser.add_argument("--python", default="3.13", metavar="MINOR", help="as the template's Runtime")
    parser.add_argument("--output", type=Path, help="build/gateway.zip, or build/local.zip")
    parser.add_argument("--unpacked", type=Path, metavar="FOLDER", help="put the files there, for sam build")
    options = parser.parse_args()
    here = "arm64" if platform.machine() in ("aarch64", "arm64") else "x86_64"
    arch = options.arch or (here if options.local else "arm64")
    target = options.output or ROOT / "build" / ("local.zip" if options.local else "gateway.zip")
    try:
        if options.unpacked:
            unpacked(arch, options.python, options.unpacked)
            return
        compiled = build(arch, options.python, target, options.local)
    except Unbuildable as exc:
        sys.exit(str(exc))
    size = target.stat().st_size / 2**20
    bytecode = f"bytecode of Python {options.python}" if compiled else "no bytecode"
    print(f"{target}: {size:.1f} MiB, {arch}, {bytecode}")


if __name__ == "__main__":
    main()
