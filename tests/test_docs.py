"""The blocks of the documentation run and print what they show; its links and file names lead somewhere."""

import re
from pkgutil import resolve_name

import pytest
from documents import API_PAGES, CONTRIBUTING, PAGES, README, ROOT, anchors, has_runnable_blocks, prose, run_blocks

import seqclf

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


@pytest.mark.parametrize("doc", API_PAGES, ids=lambda doc: doc.stem)
def test_documented_names_exist(doc):
    names = re.findall(r"^::: ([\w.]+)|\]\[([\w.]+)\]", doc.read_text(encoding="utf-8"), re.M)
    assert names
    for name in map("".join, names):
        resolve_name(name)


def test_the_api_page_links_every_public_name():
    page = (ROOT / "docs/api/seqclf.md").read_text(encoding="utf-8")
    assert [name for name in seqclf.__all__ if f"`{name}`" not in page and f"::: seqclf.{name}\n" not in page] == []


@pytest.mark.slow
def test_the_optuna_block_runs_where_optuna_is_installed(checkout):
    optuna = pytest.importorskip("optuna")
    page = (ROOT / "docs/selection.md").read_text(encoding="utf-8")
    config = re.search(r"<<'EOF'\n(.*?)^EOF$", page, re.M | re.S)[1]
    search = re.search(r"^import optuna.*?(?=^```$)", page, re.M | re.S)[0]
    (checkout / "small.py").write_text(config.replace("steps=40", "steps=4").replace("eval_every=10", "eval_every=2"))
    variables = {}
    exec(compile(search, "docs/selection.md", "exec"), variables)
    trials = variables["study"].trials
    assert len(trials) == 3 and trials[0].state is optuna.trial.TrialState.COMPLETE
