"""Run a command only where it applies, as the steps of project.yml know no conditions.

    python scripts/only_if.py gold=gold dev.spacy --else-clear training/teacher -- COMMAND...

A condition is two words that must be equal, A=B, or a .spacy file that must hold a labelled Doc.
Where one is not met, the folders after --else-clear are emptied, so that no later step reads what
an earlier run left there.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path


def is_met(condition: str) -> bool:
    left, equals, right = condition.partition("=")
    if equals:
        return left == right
    from spacy.vocab import Vocab

    from spacy_mmcot.corpus.docbin import read_docs

    return any(doc.has_annotation("ENT_IOB") for doc in read_docs(Path(condition), Vocab()))


def main() -> None:
    words = sys.argv[1:]
    end = words.index("--")
    parser = argparse.ArgumentParser(description="Run the command after -- where it applies.")
    parser.add_argument("conditions", nargs="+", help="A=B, or a .spacy file with labels")
    parser.add_argument("--else-clear", type=Path, action="append", default=[], metavar="FOLDER")
    options = parser.parse_args(words[:end])
    failed = next((c for c in options.conditions if not is_met(c)), None)
    if failed is None:
        command = words[end + 1 :]
        if command[0] == "python":
            command[0] = sys.executable
        sys.exit(subprocess.run(command, check=False).returncode)
    for folder in options.else_clear:
        if folder.exists():
            shutil.rmtree(folder)
            folder.mkdir()
    left, equals, right = failed.partition("=")
    why = f"{left} is not {right}" if equals else f"no labels in {failed}"
    print(f"Left out, as {why}: {' '.join(words[end + 1 : end + 5])} ...")


if __name__ == "__main__":
    main()
