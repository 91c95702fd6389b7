"""Files that are whole or not there, whenever the process is killed or the power fails; and one writer at a time."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import filelock


@contextlib.contextmanager
def replacing(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to; at the end of the block that file, flushed to disk, takes the place of `path`."""
    path = pathlib.Path(path)
    writing = path.with_name(f".writing-{path.name}")
    writing.unlink(missing_ok=True)  # in a folder from elsewhere it may be a link to any file
    try:
        yield writing
        move(writing, path)
    finally:
        writing.unlink(missing_ok=True)


def move(source: pathlib.Path, target: pathlib.Path) -> None:
    """Renames a file or folder once its content is on disk, and waits for the new name to be there, too."""
    flush(source)
    os.replace(source, target)
    flush(target.parent)


def flush(path: pathlib.Path) -> None:
    """Waits until a file or folder is on disk."""
    if os.name != "posix" and path.is_dir():  # where folders can't be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def only_process(lock: pathlib.Path, work: str) -> Iterator[None]:
    """Holds the file `lock`; raises ValueError while another process does. A crash leaves no lock behind."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(f"another process is {work}; wait for it, stop it or choose another name") from None
    try:
        yield
    finally:
        held.release()
