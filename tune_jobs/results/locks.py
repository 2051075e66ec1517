"""The kernel's lock of a file, which goes with the process that holds it, however it dies."""

from __future__ import annotations

import errno
import fcntl
from typing import IO, Any

from tune_jobs.errors import UsageError

_NONE = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)
"""What a file system without locks says: NFS without its lock daemon, or Lustre."""


def lock(file: IO[Any], shared: bool = False, wait: bool = False) -> bool:
    """Lock an open file until it is closed; whether it could be had, which is at once unless it is to `wait`.

    Raises UsageError where the file system has no locks.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NONE:
            raise
        raise UsageError(
            f"{file.name}: the file system there has no locks ({error.strerror}), which keep a run to one process; "
            "give a storage on another one, or mount it with locks (NFS: with lockd, Lustre: -o flock)"
        ) from error
    return True
