from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from asyncdmtl.errors import UsageError
from asyncdmtl.net.credentials import SECRET_VARIABLE, Credentials, ProofTranscript, find_credentials

SECRET = "correct horse battery staple"
OTHER = "a secret that is another one"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_one_secret_for_all(tmp_path: Path) -> None:
    found = find_credentials(write(tmp_path / "secret", f"{SECRET}\n"))
    assert found is not None
    assert found.of("w0") == found.of("anyone") == found.expected_of("w0") == SECRET.encode()


def test_one_secret_for_each(tmp_path: Path) -> None:
    table = f'[workers]\nw0 = "{SECRET}"\n"w 1" = "{OTHER}"\n'
    found = find_credentials(write(tmp_path / "secrets.toml", table))
    assert found is not None
    assert found.of("w0") == found.expected_of("w0") == SECRET.encode()
    assert found.of("w 1") == found.expected_of("w 1") == OTHER.encode()
    with pytest.raises(UsageError, match=r"--name must have a secret in .*secrets.toml, got 'w2'"):
        found.of("w2")
    # A server asks strangers for a proof, too, so that its answer does not reveal which names exist.
    assert found.expected_of("w2") not in (SECRET.encode(), OTHER.encode())


def test_the_environment_is_asked_where_there_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    assert find_credentials(None) is None
    monkeypatch.setenv(SECRET_VARIABLE, SECRET)
    found = find_credentials(None)
    assert found is not None
    assert found.of("w0") == SECRET.encode()
    found = find_credentials(write(tmp_path / "secret", OTHER))
    assert found is not None
    assert found.of("w0") == OTHER.encode()
    monkeypatch.setenv(SECRET_VARIABLE, "")
    with pytest.raises(UsageError, match="ASYNCDMTL_SECRET must have at least 16 bytes"):
        find_credentials(None)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " "])
def test_line_ends_and_byte_order_marks_are_no_part_of_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setenv(SECRET_VARIABLE, f"\ufeff{SECRET}{end}")
    marked = write(tmp_path / "secret", f"\ufeff{SECRET}{end}")
    table = write(tmp_path / "secrets.toml", f'\ufeff[workers]{end.strip(" ") or chr(10)}w0 = "{SECRET} "\n')
    for found in map(find_credentials, (None, marked, table)):
        assert found is not None
        assert found.of("w0") == SECRET.encode()
    monkeypatch.setenv(SECRET_VARIABLE, f"{SECRET}{end}{OTHER}")
    if end != " ":
        with pytest.raises(UsageError, match="ASYNCDMTL_SECRET must be one line"):
            find_credentials(None)


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_a_file_that_the_own_group_may_read_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    path = write(tmp_path / "secret", SECRET, mode)
    found = find_credentials(path)
    assert found is not None
    assert found.of("w0") == SECRET.encode()
    if os.geteuid() == 0:
        os.chown(path, -1, 4321)
    monkeypatch.setattr(os, "getegid", lambda: path.stat().st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)
    with pytest.raises(UsageError, match="or also by a group of this process or of root: chmod 600"):
        find_credentials(path)
    # As Kubernetes mounts secrets for a process whose group fsGroup adds.
    monkeypatch.setattr(os, "getgroups", lambda: [path.stat().st_gid])
    assert find_credentials(path) is not None


def test_a_file_that_the_group_of_root_may_read_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # systemd gives credentials to services so, and an access control list lets the service read them.
    path = write(tmp_path / "secret", SECRET, 0o440)
    status, real = path.stat(), os.fstat
    monkeypatch.setattr(os, "getegid", lambda: status.st_gid + 1)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "fstat", lambda file: os.stat_result((*real(file)[:5], 0, *real(file)[6:])))
    assert find_credentials(path) is not None


@pytest.mark.parametrize("mode", [0o604, 0o660, 0o644, 0o444])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(UsageError, match=rf"--secret-file .* chmod 600 \(its mode is {mode:03o}\)"):
        find_credentials(write(tmp_path / "secret", SECRET, mode))


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("secret", "tiny-but-secret", "at least 16 bytes in a secret, got 15"),
        ("secret", f"{SECRET}\n{OTHER}\n", "must be one line, or a file that ends in .toml; lines, got 2"),
        ("secret", "x" * ((1 << 20) + 1), "at most 1048576 bytes long"),
        ("s.toml", SECRET, 'must be TOML with a table "workers"'),
        ("s.toml", f'w0 = "{SECRET}"', r"must be TOML with a table .*, got \['w0'\]"),
        ("s.toml", "[workers]", "must be TOML with a table"),
        ("s.toml", "[workers]\nw0 = 1234567890123456", "w0 must have text as its secret, got 'int'"),
        ("s.toml", f'[workers]\nw0 = "{SECRET}"\nw1 = "{SECRET}"', r"the same, got \['w0', 'w1'\]"),
    ],
)
def test_bad_files_are_named_and_never_quoted(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint) as caught:
        find_credentials(write(tmp_path / name, text))
    assert name in str(caught.value)
    for secret in (SECRET, OTHER, "tiny", "xxxx", "1234"):
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--secret-file must be readable \(No such file"):
        find_credentials(tmp_path / "absent")


def test_credentials_do_not_show_secrets(tmp_path: Path) -> None:
    for content, name in ((SECRET, "s"), (f'[workers]\nw0 = "{SECRET}"', "s.toml")):
        found = find_credentials(write(tmp_path / name, content))
        assert SECRET not in f"{found} {found!r}"


def test_a_proof_holds_for_nothing_else() -> None:
    said = ProofTranscript("run", "w0", b"s" * 32, b"w" * 32, b"binding")
    others = [
        replace(said, run="r"),
        replace(said, name="w1"),
        replace(said, run="runw", name="0"),
        replace(said, server_nonce=said.worker_nonce, worker_nonce=said.server_nonce),
        replace(said, server_nonce=b"x" * 32),
        replace(said, worker_nonce=b"x" * 32),
        replace(said, binding=b""),
    ]
    secret = SECRET.encode()
    found = {other.proof(secret, "worker") for other in others}
    found |= {said.proof(OTHER.encode(), "worker"), said.proof(secret, "server")}
    assert len(found) == 9
    assert said.proof(secret, "worker") not in found
    assert said.proof(secret, "worker") == replace(said).proof(secret, "worker")


def test_each_server_has_its_own_secret_for_unknown_names() -> None:
    one, two = (Credentials(None, {"w0": SECRET.encode()}, "test") for _ in range(2))
    assert one.expected_of("w1") != two.expected_of("w1")
