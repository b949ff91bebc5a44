"""The page of the report as it stands in its file: whole rules, whole elements."""

import re
from html.parser import HTMLParser
from importlib.resources import files

PAGE = files("amst_hpc.quality").joinpath("report.html").read_text(encoding="utf-8")


def test_each_rule_of_the_style_begins_a_line():
    style = re.search(r"<style>\n(.*)</style>", PAGE, re.DOTALL)[1]
    rules = re.findall(r"^([a-z0-9.,> -]+) \{ ((?:[a-z-]+: [^{};]+;\s*)+)\}\n", style, re.MULTILINE)
    assert "".join(f"{selector} {{ {body}}}\n" for selector, body in rules) == style
    assert {".summary", "img", "table", "th, td", ".flag", "pre"} <= {rule[0] for rule in rules}


def test_elements_are_closed():
    opened = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, _):
            if tag not in ("meta", "img"):
                opened.append(tag)

        def handle_endtag(self, tag):
            assert opened.pop() == tag

    Reader().feed(PAGE)
    assert not opened
