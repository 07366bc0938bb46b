"""Configs as trees, in text and in a notebook; differences of two configs."""

import html.parser

import pytest

from praxis import inspection, pax_fiddle
from praxis.config.text import diff_text
from praxis.inspection import view


def owner(child=None, children=(), text="", table=None):
    del child, children, text, table


def leaf(size=1):
    return size


CONFIG = pax_fiddle.Config(
    owner,
    child=pax_fiddle.Config(leaf, size=3),
    children=[pax_fiddle.Config(leaf), None],
    text="<a & b>",
    table={"k": pax_fiddle.Config(leaf, size=5)},
)
TREE = """\
owner
  child: leaf
    size: 3
  children: list
    [0]: leaf()
    [1]: None
  text: '<a & b>'
  table: dict
    k: leaf
      size: 5"""


def test_text():
    assert str(inspection.config_view(CONFIG)) == TREE


class Balanced(html.parser.HTMLParser):
    """Checks that tags close in order, and gathers the text."""

    def __init__(self):
        super().__init__()
        self.open, self.texts = [], []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_plain_html(monkeypatch):
    monkeypatch.setattr(view.importlib.util, "find_spec", lambda name: None)
    written = inspection.config_view(CONFIG)._repr_html_()
    parser = Balanced()
    parser.feed(written)
    parser.close()
    assert parser.open == []
    assert "".join(parser.texts).startswith("ownerchild: leafsize: 3")
    assert "<code>&#x27;&lt;a &amp; b&gt;&#x27;</code>" in written
    assert "<script" not in written


def test_treescope():
    treescope = pytest.importorskip("treescope")
    text = treescope.render_to_text(view._Node(CONFIG))
    for part in ("owner(", "child=leaf(", "size=3", "text='<a & b>'", "'k': leaf("):
        assert part in text.replace("\n", "").replace("  ", "")
    assert "<script" in inspection.config_view(CONFIG)._repr_html_()


def test_difference():
    other = CONFIG.clone().set(text="b")
    other.child.size = 4
    del other.table["k"]
    table = inspection.config_diff(CONFIG, other)
    assert table.rows == [
        ("child.size", "3", "4"),
        ("table.k.cls", "leaf", ""),
        ("table.k.size", "5", ""),
        ("text", "'<a & b>'", "'b'"),
    ]


def test_difference_as_text_has_the_same_lines():
    other = CONFIG.clone().set(text="b")
    assert inspection.diff_text is diff_text
    assert diff_text(CONFIG, other) == "- text : '<a & b>'\n+ text : 'b'\n"


def test_no_difference():
    assert inspection.config_diff(CONFIG, CONFIG.clone()).rows == []
    assert diff_text(CONFIG, CONFIG.clone()) == ""
