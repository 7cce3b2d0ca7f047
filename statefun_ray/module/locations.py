"""Where a file is, as StateFun's settings say it: a path, or a ``file:`` URL. Opens nothing."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def path_of(location: str) -> str:
    """Return the path that is meant.

    Raises:
        ValueError: it is not on a disk of this machine; says what to write.
    """
    scheme, colon, rest = location.partition(":")
    scheme = scheme.lower() if colon else ""
    if scheme == "file":
        split = urlsplit(location)
        if split.netloc not in ("", "localhost"):
            raise ValueError(
                f"{split.netloc!r} is the name of a machine there; a path of its own has three slashes in front: "
                f"file:///{split.netloc}{split.path}"
            )
        return unquote(split.path)
    if scheme == "classpath":
        raise ValueError(
            f"there is no class path here; give the path of the file, such as {rest.lstrip('/') or 'module.yaml'}"
        )
    if scheme and rest.startswith("//"):
        raise ValueError("files are not loaded over the network; give the path of one")
    return location
