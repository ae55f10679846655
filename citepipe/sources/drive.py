"""Files and folders at Google Drive that are shared with everyone who has the link.

Drive has no interface without a key: a folder's list is a page made for embedding, and a large file
comes only after a page that asks whether one is sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import parse_qs, urlencode, urljoin, urlsplit

from citepipe.errors import InputError
from citepipe.sources.address import Drive
from citepipe.sources.download import Downloader

DOWNLOADS = "https://drive.usercontent.google.com"
PAGES = "https://drive.google.com"

_FILE = re.compile(r"/file/d/([\w-]+)")
_FOLDER = re.compile(r"/folders/([\w-]+)")
_DEEPEST = 8
_REASONS = (
    (
        ("quota", "too many users"),
        "fetched too often of late; Drive gives it out again in a day",
    ),
    (("sign in", "accounts.google.com", "need access"), "it is not shared with everyone"),
    (("not exist", "not found", "in the trash"), "there is no such file"),
)


class _Form(HTMLParser):
    """The form that leads on to the file: where it goes, and what it sends."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "form" and named.get("id") == "download-form":
            self._inside, self.action = True, named.get("action", "")
        elif tag == "input" and self._inside and named.get("name"):
            self.fields[named["name"]] = named.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "form"


class _Links(HTMLParser):
    """The links of a page with the text in each."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._inside = True
            self.found.append((dict(attrs).get("href") or "", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "a"

    def handle_data(self, data: str) -> None:
        if self._inside:
            href, text = self.found[-1]
            self.found[-1] = href, text + data


def file_url(place: Drive, base: str = DOWNLOADS) -> str:
    """Where a file comes from."""
    return f"{base}/download?{_query(place, export='download', confirm='t')}"


def leads_on(address: str, page: str, base: str = DOWNLOADS) -> str:
    """The URL that a page which came in place of a file leads on to.

    Raises:
        InputError: it leads nowhere; with what it says.
    """
    form = _Form()
    form.feed(_readable(page))
    if form.action and form.fields:
        target, own = urlsplit(urljoin(f"{base}/download", form.action)), urlsplit(base)
        at_drive = target.scheme == "https" and target.netloc.endswith(".google.com")
        if at_drive or (target.scheme, target.netloc) == (own.scheme, own.netloc):
            return target._replace(query=urlencode(form.fields)).geturl()
    words = page.lower()
    for signs, reason in _REASONS:
        if any(sign in words for sign in signs):
            raise InputError(f"{address}: {reason}")
    raise InputError(f"{address}: Drive sent a page where a file was expected")


def files_of(
    downloader: Downloader, place: Drive, address: str, base: str = PAGES
) -> dict[str, Drive]:
    """The files of a folder and of the folders in it, by their paths.

    Raises:
        InputError: the folder cannot be seen, has no files, or two of one name.
    """
    found: dict[str, Drive] = {}
    for path, file in _below(downloader, place, address, base, ()):
        if path in found:
            raise InputError(f"{address}: expected each name once, there are two files {path}")
        found[path] = file
    if not found:
        raise InputError(
            f"{address}: no files there; it is empty, or not shared with everyone who has the link"
        )
    return found


def _below(
    downloader: Downloader, place: Drive, address: str, base: str, above: tuple[str, ...]
) -> Iterator[tuple[str, Drive]]:
    if len(above) > _DEEPEST:
        raise InputError(f"{address}: folders in folders, more than {_DEEPEST} deep")
    links = _Links()
    links.feed(_readable(downloader.text(f"{base}/embeddedfolderview?{_query(place)}")))
    for href, text in links.found:
        name = "".join(c if c.isprintable() and c not in "/\\" else "-" for c in text.strip())
        if not name or name in (".", ".."):
            continue
        if file := _FILE.search(href):
            yield "/".join((*above, name)), Drive(file[1], False, name, _key(href))
        elif folder := _FOLDER.search(href):
            inner = Drive(folder[1], True, name, _key(href))
            yield from _below(downloader, inner, address, base, (*above, name))


def _query(place: Drive, **more: str) -> str:
    key = {"resourcekey": place.key} if place.key else {}
    return urlencode({"id": place.id, **more, **key})


def _key(href: str) -> str:
    return parse_qs(urlsplit(href).query).get("resourcekey", [""])[0]


def _readable(page: str) -> str:
    """A page without marked sections, at some of which the parser raises AssertionErrors."""
    return page.replace("<![", "<! [")
