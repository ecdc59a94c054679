"""The tables of docs/results are those that `bench tables` makes of what lies beside them."""

from pathlib import Path

from resetta.experiments.bench import tables
from resetta.experiments.bench.results import markdown

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_each_committed_table_is_made_of_its_result():
    made = 0
    for folder in sorted({path.parent for path in RESULTS.rglob("*.json")}):
        for module, result in tables._results(folder):
            table = folder / f"{result['benchmark']}.md"
            picture = table.with_suffix(".png").exists()
            again = markdown(result, module.table(result), picture)
            assert table.read_text(encoding="utf-8") == again, f"resetta bench tables out={folder}"
            made += 1
    assert made > 40
