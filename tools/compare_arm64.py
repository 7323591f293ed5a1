"""Compare the bits of arm64 with those of this machine: `python tools/compare_arm64.py`.

Debian's Python for arm64 and NumPy's wheel for it are put into a folder and run by `qemu-aarch64` (package
`qemu-user`), which emulates that architecture. The digests of the probe are compared, and the models of all
cases of `compare_machines`. Needs Linux, `apt-get`, `dpkg` and a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import blake3
import click
import compare_machines
import numpy as np
import threadpoolctl

import asyncdmtl
from asyncdmtl.arithmetic.probe import digests

SOURCE = "deb [arch=arm64] http://deb.debian.org/debian bookworm main"

# The Debian packages of Python 3.11 and of the libraries that it is linked with.
PACKAGES = (
    "libc6", "libgcc-s1", "libstdc++6", "libexpat1", "zlib1g", "libssl3", "libffi8", "liblzma5", "libbz2-1.0",
    "libuuid1", "libcrypt1", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib",
)  # fmt: skip

# The platform tags that wheels of NumPy and BLAKE3 may have.
PLATFORMS = (
    "manylinux2014_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_28_aarch64",
)


def run(*words: str | Path, cwd: Path | None = None) -> str:
    """The output of a command; an error with its last lines if it fails."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise click.ClickException(f"{words[0]} failed: {done.stderr[-500:]}")
    return done.stdout


def debian(folder: Path) -> Path:
    """A root folder with Debian's Python for arm64."""
    apt, root, packages = folder / "apt", folder / "root", folder / "packages"
    for made in (apt / "lists/partial", apt / "cache/archives/partial", apt / "state", root, packages):
        made.mkdir(parents=True, exist_ok=True)
    (apt / "status").touch()
    (apt / "sources.list").write_text(f"{SOURCE}\n")
    (apt / "apt.conf").write_text(
        'APT::Architecture "arm64"; APT::Architectures { "arm64"; }; APT::Sandbox::User "root";\n'
        f'Dir::State "{apt}/state"; Dir::State::lists "{apt}/lists"; Dir::State::status "{apt}/status";\n'
        f'Dir::Cache "{apt}/cache"; Dir::Etc::sourcelist "{apt}/sources.list"; Dir::Etc::sourceparts "-";\n'
    )
    run("apt-get", "-c", apt / "apt.conf", "update")
    run("apt-get", "-c", apt / "apt.conf", "download", *PACKAGES, cwd=packages)
    for package in packages.glob("*.deb"):
        run("dpkg", "-x", package, root)
    return root


def wheels(folder: Path) -> Path:
    """A folder with this NumPy and BLAKE3 for arm64, and the pure Python that the tools import."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    platforms: list[str] = [word for name in PLATFORMS for word in ("--platform", name)]
    for wanted in (f"numpy=={np.__version__}", f"blake3=={blake3.__version__}"):
        options = [
            "--no-deps",
            "--only-binary=:all:",
            "--python-version",
            "3.11",
            "-d",
            str(folder),
            *platforms,
        ]
        run(sys.executable, "-m", "pip", "download", "--quiet", *options, wanted)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(site)
    shutil.copy(threadpoolctl.__file__, site)
    shutil.copytree(Path(click.__file__).parent, site / "click", dirs_exist_ok=True)
    return site


def on_arm64(root: Path, site: Path, words: Sequence[str]) -> str:
    """The output of Python on arm64."""
    paths = [Path(asyncdmtl.__file__).parents[1], Path(compare_machines.__file__).parent, site]
    environment = ["-E", f"PYTHONHOME={root}/usr", "-E", f"PYTHONPATH={':'.join(map(str, paths))}"]
    return run("qemu-aarch64", "-L", root, *environment, root / "usr/bin/python3.11", *words)


PROBE = (
    "import json; from asyncdmtl.arithmetic.probe import digests;"
    "print(json.dumps({name: value.hex() for name, value in digests('fast').items()}))"
)


@click.command()
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path("/tmp/asyncdmtl-arm64"), show_default=True
)
def main(folder: Path) -> None:
    """Compare this machine with arm64."""
    root, site = debian(folder), wheels(folder)
    there = json.loads(on_arm64(root, site, ["-c", PROBE]))
    for name, value in digests("fast").items():
        click.echo(f"{name}: {'the same' if there[name] == value.hex() else 'differs'}")
    models = json.loads(on_arm64(root, site, [compare_machines.__file__, "--here"]))
    expected = compare_machines.digests("reproducible")
    same = [name for name in expected if models[name] == expected[name]]
    click.echo(f"models: {len(same)} of {len(expected)} cases the same")
    if len(same) < len(expected):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
