"""Which log is in a folder, asked by somebody who does not serve it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from statefun_ingress.files import OsLogFiles
from statefun_ingress.log import IngressLog
from statefun_ingress.segment import META_NAME, read_meta


def log_id_in(directory: str) -> str | None:
    """Return the id of the log in a folder, None if there is none. Changes nothing.

    Raises:
        LogLocked: a live process has it open.
        CorruptLog: its description cannot be read.
        OSError: the folder cannot be read.
    """
    if not os.path.isfile(os.path.join(directory, META_NAME)):
        return None
    files = OsLogFiles(directory)
    try:
        return read_meta(files)[0]
    finally:
        files.close()


@contextmanager
def held_log(directory: str) -> Iterator[IngressLog]:
    """Open the log in a folder that has one, for as long as nobody else may. Blocking: about a second per GB.

    Raises:
        LogLocked: a live process has it open.
        CorruptLog: something acknowledged is damaged or missing.
        OSError: the folder cannot be read, or not be written to.
    """
    files = OsLogFiles(directory)
    try:
        log = IngressLog.open(files, "")
    except BaseException:
        files.close()
        raise
    try:
        yield log
    finally:
        log.close()
