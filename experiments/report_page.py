"""The page around a report: its skeleton and its styles. Nothing in it is fetched from anywhere."""

import html
from collections.abc import Sequence

STYLE = """
:root { --paper: #faf9f6; --card: #ffffff; --ink: #1e293b; --muted: #5b6779; --line: #e2e5ea; --accent:
  #c2410c; --code: #f1efe9; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --card: #1c222b; --ink: #e7eaf0; --muted:
  #9aa6b8; --line: #303845; --accent: #ff9466; --code: #232a35; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 system-ui, -apple-system,
  "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
header .run { color: var(--muted); font-size: .9rem; margin: 0 0 .75rem; overflow-wrap: anywhere; }
header .run b { color: var(--accent); font-weight: 600; letter-spacing: .02em; }
h1 { font-size: clamp(1.45rem, 1rem + 2.2vw, 2.1rem); line-height: 1.25; font-weight: 650; letter-spacing:
  -.012em; margin: 0 0 1rem; text-wrap: balance; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 3rem 0 .6rem; }
p { margin: 0 0 .8rem; } .lead { color: var(--muted); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem; margin:
  1.75rem 0 0; padding: 0; }
.facts div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .7rem
  .9rem; }
.facts dt { color: var(--muted); font-size: .8rem; } .facts dd { margin: 0; font-weight: 600;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
figure { margin: 1rem 0 0; }
figure svg, figure img, figure video { display: block; width: 100%; height: auto; border: 1px solid
  var(--line); border-radius: .6rem; background: #fff; }
figure video, figure img { width: auto; max-width: 100%; }
figcaption { color: var(--muted); font-size: .87rem; margin-top: .5rem; }
.missing { color: var(--muted); border: 1px dashed var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line);
  }
tbody tr:last-child > * { border-bottom: 0; }
th { font-weight: 600; } thead th { color: var(--muted); font-weight: 500; font-size: .82rem; }
tr.beyond > * { color: var(--muted); } tr.limit > * { border-bottom: 2px dotted var(--muted); }
table.plain th, table.plain td { text-align: left; white-space: normal; overflow-wrap: anywhere;
  vertical-align: top; }
table.plain th { width: 11rem; color: var(--muted); font-weight: 500; }
code, pre { font: .86em/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--code);
  border-radius: .6rem; padding: .9rem 1rem; overflow-x: auto; margin: .6rem 0
  1rem; }
details { margin-top: 1rem; } summary { cursor: pointer; color: var(--accent); }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .85rem; }
@media (max-width: 32rem) { body { font-size: 16px; } main { padding-top: 1.75rem; } th, td { padding:
  .35rem .6rem; } table.plain th { width: 7.5rem; } }
@media print { body { background: #fff; } details > * { display: block; } }
"""


def page(title: str, sections: Sequence[str]) -> str:
    """A whole HTML document of `sections`, which are HTML already; `title` is text."""
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    """Any value as text in HTML, in elements and in quoted attributes alike."""
    return html.escape(str(value), quote=True)


def section(heading: str, *parts: str) -> str:
    """A headed section of parts that are HTML already."""
    return f"<section>\n<h2>{text(heading)}</h2>\n" + "\n".join(parts) + "\n</section>"


def missing(sentence: str) -> str:
    """What is not there, and what would bring it; `sentence` is HTML."""
    return f'<p class="missing">{sentence}</p>'


def figure(content: str, caption: str = "") -> str:
    """A figure; `content` and `caption` are HTML."""
    return f"<figure>{content}" + (f"<figcaption>{caption}</figcaption>" if caption else "") + "</figure>"


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """A row of small facts, (name, value)."""
    cells = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{cells}</dl>'


def plain_table(pairs: Sequence[tuple[str, object]], label: str) -> str:
    """A table of names and values."""
    rows = "".join(
        f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in pairs
    )
    table = f'<table class="plain" aria-label="{text(label)}"><tbody>{rows}</tbody></table>'
    return f'<div class="scroll">{table}</div>'
