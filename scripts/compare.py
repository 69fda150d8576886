"""Print the metrics of baseline, student and teacher side by side, from their JSON files."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

folder = Path(sys.argv[1])
columns = {
    name: json.loads((folder / f"{name}.json").read_text("utf-8"))
    for name in ("baseline", "student", "teacher")
}
labels = sorted({label for metrics in columns.values() for label in metrics["ents_per_type"]})

table = Table("entities, strict F1", *columns, title="Test split")
table.add_row("all (spaCy)", *(f"{100 * m['ents_f']:.2f}" for m in columns.values()))
table.add_row("all (seqeval)", *(f"{100 * m['seqeval_f']:.2f}" for m in columns.values()))
for label in labels:
    scores = (m["ents_per_type"].get(label, {}).get("f", 0.0) for m in columns.values())
    table.add_row(label, *(f"{100 * score:.2f}" for score in scores))
table.add_section()
table.add_row("calibration error", *(f"{100 * m['ents_ece']:.2f}" for m in columns.values()))
table.add_row("words/s", *(str(m["words_per_second"]) for m in columns.values()))
table.add_row("model, MB", *(str(m["model_mb"]) for m in columns.values()))
table.add_row("training, s", *(str(m["training"]["seconds"]) for m in columns.values()))
Console().print(table)

for name, metrics in columns.items():
    if abs(metrics["ents_f"] - metrics["seqeval_f"]) > 1e-9:
        sys.exit(f"✘ {name}: spaCy's F1 and seqeval's differ. Please report this.")
