"""Files and folders at Google Drive that are shared with everyone who has the link.

Drive has no interface without a key: a folder's list is a page made for embedding, and a large file
comes only after a page that asks whether one is sure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

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
    query = urlencode({"id": place.id, "export": "download", "confirm": "t"})
    return f"{base}/download?{query}"


def leads_on(address: str, page: str, base: str = DOWNLOADS) -> str:
    """The URL that a page which came in place of a file leads on to.

    Raises:
        InputError: it leads nowhere; with what it says.
    """
    form = _Form()
    form.feed(page)
    if form.action and form.fields:
        target = urlsplit(urljoin(f"{base}/download", form.action))
        if target.netloc == urlsplit(base).netloc or target.netloc.endswith(".google.com"):
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
        InputError: the folder cannot be seen, or has no files.
    """
    found = dict(_below(downloader, place, address, base, ()))
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
    links.feed(downloader.text(f"{base}/embeddedfolderview?{urlencode({'id': place.id})}"))
    for href, text in links.found:
        name = text.strip().replace("/", "-").replace("\\", "-")
        if not name or name in (".", ".."):
            continue
        if file := _FILE.search(href):
            yield "/".join((*above, name)), Drive(file[1], False, name)
        elif folder := _FOLDER.search(href):
            inner = Drive(folder[1], True, name)
            yield from _below(downloader, inner, address, base, (*above, name))
