"""Write the tables of steps in docs/PROJECT.md from project.yml.

python scripts/project_page.py           write them
python scripts/project_page.py --check   exit code 1 if they are out of date
"""

import sys
import tempfile
from pathlib import Path

from weasel.cli.document import project_document

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "PROJECT.md"


def make_page() -> str:
    """The page with the tables of project.yml as it is."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / PAGE.name
        copy.write_text(PAGE.read_text("utf-8"), "utf-8")
        project_document(ROOT, copy, no_emoji=True)
        # The tables are made for a README beside the project file.
        return copy.read_text("utf-8").replace("](project.yml)", "](../project.yml)")


def main() -> None:
    page = make_page()
    if "--check" not in sys.argv:
        PAGE.write_text(page, "utf-8")
    elif page != PAGE.read_text("utf-8"):
        sys.exit(f"{PAGE.name} is out of date: run python scripts/project_page.py")


if __name__ == "__main__":
    main()
