"""`probes.html`: the table of `resetta bench probes` and all its pictures, one page that opens offline."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plots
from ..atomic import atomic
from ..report_page import figure, page, plain_table, section, text
from .results import Table

if TYPE_CHECKING:
    from ..plots import Figure

_CAPTIONS = {
    "scores": "0 is the best that can be had without memory, 1 the reference; below, what was hidden at each "
    "depth of an episode of each length.",
    "quadrants": "Scope is how many steps an answer depends on; diffusion is their number over the length of "
    "their longest run without another item between them. Means over probes.",
    "options": "Means and 95 % bootstrap intervals over seeds and episodes.",
    "distances": "Raw shares of right answers, by how many steps before the answer the earliest item lies "
    "that it depends on; means and 95 % intervals over seeds.",
    "recall": "R² of a ridge regression from the carry after the last step to the token so many steps before "
    "it, fitted to one half of 512 episodes and judged on the other; the first seed. Below, of cores with "
    "several layers, from the memory of each layer by itself.",
    "mixing": "Norms of the derivative of each output (down) by each input (to the right) in one episode, "
    "from an empty memory, on a logarithmic scale over three powers of ten; dots on the right mark answers. "
    "The first seed; of longer episodes the last 128 steps.",
}


def write_page(
    result: Mapping[str, Any], table: Table, pictures: Mapping[str, tuple[str, "Figure"]], path: Path
) -> None:
    """Write the page: `pictures` by name, each with its heading."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    how = [
        ("command", result["command"]),
        ("date", result["date"]),
        ("device", result["device"]),
        ("versions", versions),
    ]
    drawn = [
        section(
            heading,
            figure(plots.to_svg(made, f"{heading}; every number is in probes.json"), text(_CAPTIONS[name])),
        )
        for name, (heading, made) in pictures.items()
    ]
    notes = "".join(f'<p class="lead">{text(note)}</p>' for note in table.notes)
    content = page(
        f"{table.title} · Resetta",
        [
            f'<header><p class="run"><b>Resetta</b></p>\n<h1>{text(table.title)}</h1></header>',
            section("Scores", _table(table), notes),
            *drawn,
            section("How", plain_table(how, "how it was measured")),
        ],
    )
    with atomic(path) as part:
        part.write_text(content, encoding="utf-8")


def _table(table: Table) -> str:
    def line(cells: list[str], kind: str) -> str:
        return "<tr>" + "".join(f"<{kind}>{text(cell)}</{kind}>" for cell in cells) + "</tr>"

    head, body = line(table.header, "th"), "".join(line(row, "td") for row in table.rows)
    whole = f'<table aria-label="{text(table.title)}"><thead>{head}</thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{whole}</div>'
