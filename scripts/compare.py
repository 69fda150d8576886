"""Print the metrics of baseline, student and teacher side by side, from their JSON files."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

# What a pipeline may find: title, the prefix of its metrics' keys, and its rows over all labels.
TASKS = (
    ("entities, strict", "ents", {"all (spaCy)": "ents_f", "all (seqeval)": "seqeval_f"}),
    ("relations on gold mentions", "rel", {"all": "rel_f", "macro": "rel_macro_f"}),
    ("relations end to end", "rel_e2e", {"all": "rel_e2e_f"}),
)

folder = Path(sys.argv[1])
columns = {
    name: json.loads((folder / f"{name}.json").read_text("utf-8"))
    for name in ("baseline", "student", "teacher")
}


def percent(score: float | None) -> str:
    return "" if score is None else f"{100 * score:.2f}"


table = Table("F1", *columns, title="Test split")
for title, prefix, rows in TASKS:
    if all(metrics.get(f"{prefix}_f") is None for metrics in columns.values()):
        continue
    table.add_row(f"[bold]{title}[/bold]")
    for name, key in rows.items():
        table.add_row(name, *(percent(m.get(key)) for m in columns.values()))
    per_type = [m.get(f"{prefix}_per_type") or {} for m in columns.values()]
    for label in sorted({label for scores in per_type for label in scores}):
        # A label that one pipeline missed or never named is 0 for it.
        cells = [
            percent(scores.get(label, {"f": 0.0})["f"]) if scores else "" for scores in per_type
        ]
        table.add_row(escape(label), *cells)
    table.add_section()
table.add_row("calibration error", *(percent(m.get("ents_ece")) for m in columns.values()))
table.add_row("words/s", *(str(m["words_per_second"]) for m in columns.values()))
table.add_row("model, MB", *(str(m["model_mb"]) for m in columns.values()))
seconds = ((m["training"] or {}).get("seconds", "") for m in columns.values())
table.add_row("training, s", *map(str, seconds))
Console().print(table)

for name, metrics in columns.items():
    if "ents_f" in metrics and abs(metrics["ents_f"] - metrics["seqeval_f"]) > 1e-9:
        sys.exit(f"✘ {name}: spaCy's F1 and seqeval's differ. Please report this.")
