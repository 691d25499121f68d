"""How models and files are called in what others will read: without paths of this machine, and without credentials."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

_LOCAL = re.compile(r"file://|/|~|\.\.?/")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def public_name(name: str) -> str:
    """Return a hub id or a relative path as it is, a URL without user and query, of any other path the last part."""
    if "://" in name and not name.startswith("file:"):
        url = urlsplit(name)
        return urlunsplit((url.scheme, url.netloc.rpartition("@")[2], url.path, "", ""))
    if not _LOCAL.match(name):
        return name
    return PurePosixPath(name.rstrip("/")).name or "local"


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, OWNER/NAME or NAME, and is no folder here."""
    return has_hub_form(name) and not Path(name).exists()


def has_hub_form(name: str) -> bool:
    """Return whether a name has the form of a hub id, OWNER/NAME or NAME, whatever there is here."""
    return bool(_HUB_ID.fullmatch(name))


def last_part(name: str) -> str:
    """Return of a path, a relative one too, the last part: what can be said of a folder that others do not have."""
    return PurePosixPath(public_name(name)).name or "local"
