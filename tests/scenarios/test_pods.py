"""What pods do to a program: process 1, another user, a read-only root, secrets of a group, probes, signals.

A pod is made of namespaces here: no cluster and no image is needed, but root.
"""

from __future__ import annotations

import os
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.certificates import Authority
from support.ports import free_port

LIMIT = 60.0
USER, FS_GROUP = 10001, 4321
SPEC = "synthetic:tasks=2,rows=8,features=3,parts=2"
DEPLOY = Path(__file__).resolve().parents[2] / "asyncdmtl" / "docs" / "deploy"
TOKEN = "0123456789abcdef"

# $1 is the only place that can be written, and $2 a folder on the way to Python that only root may enter, or
# "-": the users of a pod can enter all folders of their image.
START = """
set -e
mount --bind "$1" "$1"
if [ "$2" != - ]; then
    mount --bind "$2" /mnt
    mount -t tmpfs -o mode=755 none "$2"
    mkdir -p "$3"
    mount --bind "/mnt/${3#"$2"/}" "$3"
fi
mount -o remount,bind,ro /
shift 3
exec setpriv --reuid=10001 --regid=10001 --groups=4321 --inh-caps=-all --bounding-set=-all --no-new-privs "$@"
"""


def obstacle() -> str | None:
    """The reason why pods cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if missing := [name for name in ("unshare", "setpriv", "mount") if shutil.which(name) is None]:
        return f"needs {', '.join(missing)}"
    try_it = ["unshare", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"]
    made = subprocess.run(try_it, check=False, capture_output=True, text=True)
    return f"namespaces cannot be had: {made.stderr.strip()}" if made.returncode else None


REASON = obstacle()

pytestmark = [pytest.mark.root, pytest.mark.skipif(REASON is not None, reason=str(REASON))]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users may enter, with the secrets of the pods as Kubernetes mounts them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        authority = Authority(folder / "ca")
        files = authority.issue("asyncdmtl")
        for source, key in (
            (files.certificate, "tls.crt"), (files.key, "tls.key"), (authority.ca, "ca.crt"),
            ("0123456789abcdef0123456789abcdef\n", "secret"), (f"{TOKEN}\n", "token"),
        ):  # fmt: skip
            made = folder / key
            made.write_text(source if isinstance(source, str) else source.read_text())
            os.chown(made, 0, FS_GROUP)
            made.chmod(0o440)
        (folder / "work").mkdir()
        os.chown(folder / "work", 0, FS_GROUP)
        (folder / "work").chmod(0o2770)
        (options,) = [each for each in manifests() if each["kind"] == "ConfigMap"]
        config = options["data"]["asyncdmtl.toml"]
        for mounted in ("/run/secrets/asyncdmtl", "/run/secrets/tls"):
            config = config.replace(mounted, name)
        (folder / "asyncdmtl.toml").write_text(config.replace('"/work/', f'"{name}/work/'))
        yield folder


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


class Pod:
    """A command as process 1 of a namespace, as another user."""

    def __init__(self, folder: Path, *words: str) -> None:
        prefix = Path(sys.base_prefix)
        closed = [str(path) for path in reversed(prefix.parents) if not path.stat().st_mode & 0o001]
        script = ["sh", "-c", START, "sh", str(folder), closed[0] if closed else "-", str(prefix)]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
        self.process = subprocess.Popen(
            [*namespaces, *script, sys.executable, "-m", "asyncdmtl", *words],
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def send(self, number: int) -> None:
        """Send a signal to process 1 from outside, as the container's engine does."""
        own = self.process.pid
        children = Path(f"/proc/{own}/task/{own}/children").read_text().split()
        os.kill(int(children[0]), number)

    def end(self) -> tuple[int, str, str]:
        """The exit code and the output of the command, which must end by itself."""
        out, err = self.process.communicate(timeout=LIMIT)
        return self.process.returncode, out, err


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    started: list[Pod] = []
    yield started
    for pod in started:
        pod.process.kill()
        pod.process.communicate()


def ask(url: str, ca: Path, **headers: str) -> tuple[int, str]:
    """The status and the body of an answer over TLS at an address that is not the certificate's name."""
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    try:
        request = urllib.request.Request(url, headers=headers)
        with urllib.request.urlopen(request, timeout=LIMIT, context=context) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_pods_train_with_the_options_of_the_manifests(folder: Path, pods: list[Pod]) -> None:
    run, dashboard = free_port(), free_port()
    config = ("--config", str(folder / "asyncdmtl.toml"))
    here = (f"--listen=0.0.0.0:{run}", f"--dashboard=0.0.0.0:{dashboard}", "--workers=1", "--data", SPEC)
    pods.append(Pod(folder, "server", *config, *here, "--json"))
    out = pods[0].process.stdout
    assert out is not None
    assert '"dashboard"' in out.readline(), pods[0].end()
    assert '"listening"' in out.readline()
    # The probes of the kubelet come over the network, know no token, and hear yes or no.
    page, ca = f"https://127.0.0.1:{dashboard}", folder / "ca.crt"
    assert ask(f"{page}/healthz", ca) == (200, "ok\n")
    assert ask(f"{page}/readyz", ca) == (200, "OK\n")
    assert ask(f"{page}/metrics", ca)[0] == ask(f"{page}/state", ca)[0] == 401
    status, metrics = ask(f"{page}/metrics", ca, Authorization=f"Bearer {TOKEN}")
    assert status == 200
    assert "asyncdmtl_ready 1.0" in metrics
    worker = (f"--connect=127.0.0.1:{run}", "--tls-server-name=asyncdmtl", "--data", SPEC, "--name=w0")
    pods.append(Pod(folder, "worker", *config, *worker))
    assert pods[1].end() == (0, "worker w0: done, models of 2 tasks\n", "")
    code, rest, err = pods[0].end()
    assert code == 0, err
    assert '"finished"' in rest
    made = folder / "work" / "report.json"
    assert made.stat().st_uid == USER


def test_process_1_ends_on_sigterm_while_it_loads(folder: Path, pods: list[Pod]) -> None:
    # A file whose reading lasts until somebody writes.
    pipe = folder / "pipe"
    os.mkfifo(pipe, 0o644)
    pods.append(Pod(folder, "worker", "--name=w0", "--data", SPEC, "--secret-file", str(pipe)))
    writers: list[int] = []
    opening = threading.Thread(target=lambda: writers.append(os.open(pipe, os.O_WRONLY)), daemon=True)
    opening.start()
    opening.join(LIMIT)
    assert writers, pods[0].end()
    pods[0].send(signal.SIGTERM)
    assert pods[0].end() == (143, "", "")
    os.close(writers[0])
