# SPDX-License-Identifier: Apache-2.0
"""The text the family learns from, and the parts set aside: three domains that every Debian with Python carries.

legal      /usr/share/common-licenses
technical  the topics of Python's help(): pydoc_data.topics
code       the modules of Python's standard library that lie at its top level
"""
import pathlib
import re
import runpy

DOMAINS = ("legal", "technical", "code")
HELD_OUT = {"legal": ("MPL-2.0",), "technical": ("execmodel", "import"), "code": ("queue.py", "fnmatch.py")}


def read_documents(licenses: pathlib.Path, library: pathlib.Path) -> dict[str, dict[str, str]]:
    """domain -> name -> text. A name that is a link to another document is left out."""
    topics = runpy.run_path(str(library / "pydoc_data" / "topics.py"))["topics"]
    return {
        "legal": {p.name: _text(p) for p in sorted(licenses.iterdir()) if p.is_file() and not p.is_symlink()},
        "technical": {name: topics[name] for name in sorted(topics)},
        "code": {p.name: _text(p) for p in sorted(library.glob("*.py"))},
    }


def split(documents: dict[str, dict[str, str]]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Training documents and held-out text of each domain.

    A paragraph of held-out text is taken out of every training document too: topics quote each other, licences also.
    """
    held_out = {d: "\n".join(documents[d][name] for name in HELD_OUT[d]) for d in DOMAINS}
    known = {_key(p) for text in held_out.values() for p in _paragraphs(text)}
    train = {}
    for domain in DOMAINS:
        texts = [text for name, text in documents[domain].items() if name not in HELD_OUT[domain]]
        train[domain] = ["\n\n".join(p for p in _paragraphs(text) if _key(p) not in known) for text in texts]
    return train, held_out


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace").replace("\f", "")


def _paragraphs(text: str) -> list[str]:
    return re.split(r"\n\s*\n", text)


def _key(paragraph: str) -> str:
    """Short paragraphs ("Note:") are nobody's; they keep a key of their own."""
    words = " ".join(paragraph.split())
    return words if len(words) > 40 else object()
