"""The directory of a run's checkpoints.

A file is written under another name, flushed to the disk, and renamed; then the directory is flushed. So a
checkpoint exists as a whole or not at all, even if the server is killed.

The first checkpoint and the last two are kept. If the last one is damaged, the one before it is used. The
first checkpoint is small, because it has no state; but with it a server can continue the run from the state
that the workers hold.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from pathlib import Path

from asyncdmtl.errors import UsageError
from asyncdmtl.server.checkpoint import Checkpoint

log = logging.getLogger(__name__)

# The number of checkpoints that are kept besides the first: the last, and the one before it.
KEPT_CHECKPOINTS = 2

# The errors of file systems that cannot flush a file, such as some network file systems.
_NOT_SUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}

# The ending of the names of checkpoints.
SUFFIX = ".checkpoint"

# The names of checkpoints. Other files, such as copies that somebody made, are left alone.
_NAME = re.compile(r"[0-9]{8,}\.checkpoint")

# A checkpoint is opened as a new file under its temporary name: no link is followed.
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)


class CheckpointStore:
    """The directory of one run's checkpoints.

    The lock is a kernel lock on the directory itself, which leaves no file behind and ends with the process.
    The directory, if it is made here, and its files are for their owner alone, since they have models and
    statistics of columns.

    Parameters
    ----------
    folder : Path
        The directory, which is made if it does not exist.

    Raises
    ------
    UsageError
        The directory cannot be made or written to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._handle: int | None = None
        self._warned: set[str] = set()
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise UsageError("--checkpoint", "must be a directory that can be written to", str(folder))
        except OSError as error:
            raise _unusable(folder, error) from error

    def lock(self) -> None:
        """Lock the directory until `unlock`, or until this process ends.

        If the file system, or the operating system, cannot lock a directory, there is only a warning.

        Raises
        ------
        UsageError
            Another server has locked it.
        """
        try:
            # Imported here, because Windows has no such module.
            import fcntl

            self._handle = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.unlock()
            rule = "must not be in use by another server"
            raise UsageError("--checkpoint", rule, str(self._folder)) from error
        except (OSError, ImportError) as error:
            self._warn("locked", error, "no other server may use it")

    def unlock(self) -> None:
        """Release the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    @property
    def files(self) -> list[Path]:
        """The files of the checkpoints, the latest first."""
        own = (file for file in self._folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(file.name))
        return sorted(own, key=lambda file: int(file.stem), reverse=True)

    def load(self) -> Checkpoint | None:
        """The latest undamaged checkpoint; None if there are no checkpoints.

        Raises
        ------
        UsageError
            There are checkpoints, and none of them can be used.
        """
        reasons: dict[Path, str] = {}
        for file in self.files:
            try:
                found = Checkpoint.unpack(file.read_bytes())
            except (OSError, ValueError) as error:
                reasons[file] = str(error)
                log.warning("checkpoint %s cannot be used: %s", file, error)
                continue
            for useless in reasons:
                useless.rename(useless.with_suffix(".unusable"))
            return found
        if reasons:
            unusable = {file.name: reason for file, reason in reasons.items()}
            raise UsageError("--checkpoint", "must have a checkpoint that can be used", unusable)
        return None

    def save(self, checkpoint: Checkpoint) -> int:
        """Write a checkpoint, delete those that are not kept, and return its size in bytes.

        Raises
        ------
        UsageError
            The checkpoint cannot be written.
        """
        content = checkpoint.pieces()
        try:
            files = self.files
            number = int(files[0].stem) + 1 if files else 0
            target = self._folder / f"{number:08d}{SUFFIX}"
            temporary = target.with_suffix(".unfinished")
            # Of a save that was interrupted; a link of this name is removed, not followed.
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, _NEW_FILE, 0o600), "wb") as file:
                file.writelines(content)
                file.flush()
                self._flush_file(file.fileno())
            temporary.replace(target)
            self._flush()
            for old in files[KEPT_CHECKPOINTS - 1 : -1]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return sum(map(len, content))

    def clear(self) -> None:
        """Delete all checkpoints: the run is over."""
        try:
            unfinished = (file.with_suffix(SUFFIX) for file in self._folder.glob("*.unfinished"))
            own = [file.with_suffix(".unfinished") for file in unfinished if _NAME.fullmatch(file.name)]
            # The latest one last: it keeps the end of the run, for a server that is killed meanwhile.
            for file in [*own, *reversed(self.files)]:
                file.unlink(missing_ok=True)
        except OSError as error:
            self._warn("cleared", error, "delete its checkpoints, since their run is over")

    def _flush_file(self, handle: int) -> None:
        try:
            os.fsync(handle)
        except OSError as error:
            # Other errors, such as that of a full disk, mean that the file is not there.
            if error.errno not in _NOT_SUPPORTED:
                raise
            self._warn("flushed to the disk", error, "a power failure may damage the last checkpoints")

    def _flush(self) -> None:
        """Flush the directory itself to the disk, if the file system can do that."""
        try:
            handle = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._warn("flushed to the disk", error, "a power failure may undo the last checkpoints")

    def _warn(self, lacking: str, error: OSError | ImportError, therefore: str) -> None:
        """Warn, once, of something that the file system of the directory cannot do."""
        if lacking not in self._warned:
            self._warned.add(lacking)
            reason = getattr(error, "strerror", None) or error
            words = "the directory of --checkpoint, %s, cannot be %s (%s): %s"
            log.warning(words, self._folder, lacking, reason, therefore)


def _unusable(folder: Path, error: OSError) -> UsageError:
    return UsageError(
        "--checkpoint", f"must be a directory that can be written to ({error.strerror})", str(folder)
    )
