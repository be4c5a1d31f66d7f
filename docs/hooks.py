"""What MkDocs adds to the pages in this folder: README and ARCHITECTURE.md, and a reference made from docstrings."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import fedbcs_monai
from fedbcs_monai import methods, networks
from fedbcs_monai.benchmark import read_plan
from fedbcs_monai.settings import KEYS

ROOT = Path(__file__).parents[1]

OUTSIDE = {"index.md": "README.md", "concepts/architecture.md": "ARCHITECTURE.md"}
"""Pages of the site that lie outside this folder, and where."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not files of this folder."""
    for page, source in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for page, text in reference().items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links that are right in the repository into links that are right on the site."""
    uri = page.file.src_uri
    return LINK.sub(lambda link: site_link(uri, *link.groups()), markdown)


def site_link(uri: str, image: str, text: str, target: str) -> str:
    """The same link on the site, or its text alone where it leads to a file that the site does not have."""
    path, _, anchor = target.partition("#")
    if not path or "://" in path:
        return f"{image}[{text}]({target})"
    found = normpath(join(dirname(OUTSIDE.get(uri, f"docs/{uri}")), path))
    pages = {source: name for name, source in OUTSIDE.items()}
    if found not in pages and not found.startswith("docs/"):
        return text if text.startswith("`") else f"`{text}`"
    there = relpath(pages.get(found, found.removeprefix("docs/")), dirname(uri) or ".")
    return f"{image}[{text}]({there}{'#' if anchor else ''}{anchor})"


def reference() -> dict[str, str]:
    """The reference pages: the public names, and the keys of configurations."""
    return {
        "reference/python.md": page_of("Python", fedbcs_monai, "What `import fedbcs_monai` offers."),
        "reference/methods.md": page_of(
            "Methods", methods, "A configuration names a method by its class; the fields of the class are its settings."
        ),
        "reference/networks.md": page_of("Networks", networks, "MONAI backbones with named levels."),
        "reference/configuration.md": configuration(),
    }


def page_of(title: str, package: Any, words: str) -> str:
    """A page with the docstring of every public name of a package."""
    public = [getattr(package, name) for name in package.__all__ if not name.startswith("__")]
    names = [f"{thing.__module__}.{thing.__qualname__}" for thing in public if hasattr(thing, "__qualname__")]
    return "\n\n".join([f"# {title}", words, *(f"::: {name}" for name in names)])


def configuration() -> str:
    """A page with every key of a configuration and of a benchmark."""
    tables = {
        "A run": {name: key.help for name, key in KEYS.items()},
        "A benchmark": read_plan.BENCHMARK_KEYS,
        "A task of a benchmark": read_plan.TASK_KEYS,
        "A training of a benchmark": read_plan.TRAINING_KEYS,
        "A sweep of a benchmark": read_plan.SWEEP_KEYS,
    }
    words = "Every key of a run is also an option of `fedbcs train`; `a::b` names the key `b` within `a`."
    return "\n\n".join(["# Configuration keys", words, *(table(title, rows) for title, rows in tables.items())])


def table(title: str, rows: dict[str, str]) -> str:
    """A heading and a table of keys."""
    lines = [f"| `{key}` | {words.replace('|', chr(92) + '|')} |" for key, words in rows.items()]
    return "\n".join([f"## {title}", "", "| key | meaning |", "|---|---|", *lines])
