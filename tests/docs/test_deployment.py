"""The files for services and clusters in the docs: options exist, schemas hold, exit codes are real."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner

from asyncdmtl.documents import parse_document
from asyncdmtl.errors import AuthenticationError, CodingError, UsageError

DEPLOY = Path(__file__).resolve().parents[2] / "asyncdmtl" / "docs" / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
# What a command that is started again would only repeat.
FINAL = sorted(error.exit_code for error in (UsageError, AuthenticationError, CodingError))
CREDENTIALS = "/run/credentials"
# The settings of a unit that keep a service from the rest of its host. systemd only warns of one that is
# misspelt, and goes on without it.
HARDENING = {
    "CapabilityBoundingSet", "DynamicUser", "LockPersonality", "NoNewPrivileges", "PrivateDevices",
    "PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
    "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
    "RestrictAddressFamilies", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
    "SystemCallArchitectures", "SystemCallFilter", "UMask",
}  # fmt: skip


def unit(file: Path) -> dict[str, list[str]]:
    """The settings of a unit; each may have several values."""
    found: dict[str, list[str]] = {}
    for line in re.sub(r"\\\n\s*", "", file.read_text()).splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def shown(words: list[str], config: Path) -> dict[str, Any]:
    """The options that a command line and a file of options give a command."""
    role, *rest = words
    line = ["--config", str(config), "--show-config", *rest]
    done = CliRunner().invoke(import_module(f"asyncdmtl.cli.{role}").main, line)
    assert done.exit_code == 0, done.exception
    options: dict[str, Any] = json.loads(done.stdout)
    return options


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_start_commands_with_options_that_exist(file: Path) -> None:
    settings = unit(file)
    (line,) = settings["ExecStart"]
    program, role, config, path, *rest = shlex.split(line.replace("${CREDENTIALS_DIRECTORY}", CREDENTIALS))
    assert (Path(program).name, config, Path(path).name) == ("asyncdmtl", "--config", "asyncdmtl.toml")
    options = shown([role, *rest], DEPLOY / "asyncdmtl.toml")
    assert options["secret_file"] == f"{CREDENTIALS}/secret"
    given = {credential.partition(":")[0] for credential in settings["LoadCredential"]}
    assert given == {word.rpartition("/")[2] for word in rest if word.startswith(CREDENTIALS)}
    written = [options[name] for name in ("checkpoint", "report_file", "save") if options.get(name)]
    assert written
    assert all(path.startswith(f"/var/lib/{settings['StateDirectory'][0]}/") for path in written)


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_do_not_repeat_what_would_fail_again(file: Path) -> None:
    settings = unit(file)
    assert settings["Restart"] == ["on-failure"]
    assert [int(code) for code in settings["RestartPreventExitStatus"][0].split()] == FINAL
    assert settings["SuccessExitStatus"] == ["130 143"]


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_keep_services_from_the_rest_of_the_host(file: Path) -> None:
    settings = unit(file)
    assert settings.keys() >= HARDENING
    assert settings["ProtectSystem"] == ["strict"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    copies = []
    for file in UNITS:
        # The program of a unit must exist.
        text = re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", file.read_text())
        copies.append(tmp_path / file.name)
        copies[-1].write_text(text)
    verify = ["systemd-analyze", "verify", "--man=no", *map(str, copies)]
    done = subprocess.run(verify, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [each for each in manifests() if each["kind"] == kind]


@pytest.mark.parametrize(
    "manifest", manifests(), ids=lambda each: f"{each['kind']}-{each['metadata']['name']}"
)
def test_manifests_are_of_the_schema(manifest: dict[str, Any]) -> None:
    kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("job", of_kind("Job"), ids=lambda job: job["metadata"]["name"])
def test_pods_start_commands_with_options_that_exist(job: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "asyncdmtl.toml"
    config.write_text(of_kind("ConfigMap")[0]["data"]["asyncdmtl.toml"])
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    role, file, *rest = container["args"]
    assert file == "--config=/etc/asyncdmtl/asyncdmtl.toml"
    options = shown([role, *(word.replace("$(JOB_COMPLETION_INDEX)", "0") for word in rest)], config)
    # Every file is in a volume that is mounted, and under a key that the commands of the docs make.
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    files = [Path(value) for value in map(str, options.values()) if value.startswith("/")]
    files.remove(config)
    assert {str(file.parent) for file in files} <= mounts | {"/work"}
    assert {file.name for file in files} <= {
        "secret", "token", "tls.crt", "tls.key", "ca.crt", "checkpoint", "report.json",
    }  # fmt: skip
    (rule, _) = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["values"] == FINAL
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]


def test_names_and_addresses_of_pods_fit_together() -> None:
    server, worker = of_kind("Job")
    (service,) = of_kind("Service")
    config = parse_document(of_kind("ConfigMap")[0]["data"]["asyncdmtl.toml"])
    assert service["spec"]["selector"] == server["spec"]["template"]["metadata"]["labels"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert config["server"]["listen"].endswith(f":{ports['run']}")
    assert config["server"]["dashboard"].endswith(f":{ports['dashboard']}")
    (container,) = worker["spec"]["template"]["spec"]["containers"]
    assert container["env"] == [
        {"name": "ASYNCDMTL_CONNECT", "value": f"{service['metadata']['name']}:{ports['run']}"}
    ]
    assert config["server"]["workers"] == worker["spec"]["completions"] == worker["spec"]["parallelism"]
    monitor = yaml.safe_load((DEPLOY / "service-monitor.yaml").read_text())
    labels = monitor["spec"]["selector"]["matchLabels"]
    assert labels.items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in ports
    assert endpoint["tlsConfig"]["serverName"] == service["metadata"]["name"]


def test_the_image_is_not_root() -> None:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()
    (user,) = [line.split()[1] for line in lines if line.startswith("USER")]
    assert int(user.partition(":")[0]) > 0
    pods = [job["spec"]["template"]["spec"]["securityContext"] for job in of_kind("Job")]
    assert {f"{pod['runAsUser']}:{pod['runAsGroup']}" for pod in pods} == {user}
