"""The blocks of the documentation run and print what they show; its links and file names lead somewhere."""

import re

import pytest
from documents import API_PAGES, CONTRIBUTING, PAGES, README, ROOT, anchors, has_runnable_blocks, prose, run_blocks

TEXTS = [README, CONTRIBUTING, *PAGES, *API_PAGES]
each_text = pytest.mark.parametrize("doc", TEXTS, ids=[str(doc.relative_to(ROOT).with_suffix("")) for doc in TEXTS])


@pytest.mark.slow
@pytest.mark.parametrize("doc", [page for page in PAGES if has_runnable_blocks(page)], ids=lambda doc: doc.stem)
def test_blocks_run_and_print_what_the_page_shows(doc, checkout):
    run_blocks(doc)


@each_text
def test_links_lead_somewhere(doc):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(doc)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (doc.parent / path).resolve() if path else doc
        assert file.exists(), f"{doc.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{doc.name} links to {target}"


@each_text
def test_named_files_exist(doc):
    named = set(re.findall(r"\b(?:configs|tools|tests|seqclf|docs)/[\w/]+(?:\.\w+)+", doc.read_text(encoding="utf-8")))
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {str(page.relative_to(ROOT / "docs")) for page in [*PAGES, *API_PAGES]}
    assert set(re.findall(r": ([\w/]+\.md)$", navigation, re.M)) == pages
