"""XML by lxml, imported on use: the module that lists the variants must load where lxml is not installed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lab.errors import LaunchError

if TYPE_CHECKING:
    from lxml import etree


def element(
    tag: str, *children: etree._Element | str, prefixes: Mapping[str, str] | None = None, **attributes: str
) -> etree._Element:
    """An element with text or children. Raises LaunchError for characters that XML cannot hold."""
    from lxml import etree

    try:
        made = etree.Element(tag, attributes, nsmap=dict(prefixes) if prefixes else None)
        for child in children:
            if isinstance(child, str):
                made.text = child
            else:
                made.append(child)
    except ValueError as error:
        raise LaunchError(f"a domain's <{tag}> cannot hold what it was given: {error}") from error
    return made


def text_of(root: etree._Element) -> str:
    """The document of `root`."""
    from lxml import etree

    return etree.tostring(root, encoding="unicode")


def parsed(text: str) -> etree._Element:
    """The root of a document that libvirt gave; entities are not resolved, and nothing is fetched."""
    from lxml import etree

    return etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
