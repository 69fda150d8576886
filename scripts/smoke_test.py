"""Does the packaged pipeline work elsewhere? Install its wheel into a fresh virtual environment,
load it by name, and find entities and relations in a new sentence: no picture, no knowledge, no
network, no training data.

    python scripts/smoke_test.py DIST_FOLDER PACKAGE_NAME TEXT

The new environment finds spaCy and this package where the running one has them; from the wheel
comes the pipeline.
"""

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

OUTPUT = Path("packages/smoke.json")

# Refuses every connection before it imports anything that might ask for one.
PROGRAM = """
import json, socket, sys

def refuse(*args, **kwargs):
    raise OSError("the smoke test allows no network")

socket.socket.connect = refuse
socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse

import spacy

nlp = spacy.load(sys.argv[1])
doc = nlp(sys.argv[2])
found = [[e.text, e.label_, round(e._.mmcot_score, 3)] for e in doc.ents]
relations = [[r.head.text, r.label, r.tail.text, round(r.score, 3)] for r in doc._.mmcot_rel]
piped = [[[e.text, e.label_] for e in d.ents] for d in nlp.pipe([sys.argv[2]] * 3)]
assert piped == [[entity[:2] for entity in found]] * 3, (piped, found)
result = {"pipeline": nlp.pipe_names, "sentence": doc.text}
print(json.dumps({**result, "entities": found, "relations": relations}))
"""


def main() -> None:
    dist, package, sentence = Path(sys.argv[1]).resolve(), *sys.argv[2:]
    wheels = sorted(dist.glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"✘ {dist} holds {len(wheels)} wheels, expected one: run the package step again.")
    with tempfile.TemporaryDirectory(prefix="mmcot-smoke-") as folder:
        environment = Path(folder) / "venv"
        print(f"Installing {wheels[0].name} into a fresh virtual environment")
        python = create_environment(environment)
        pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        offline = ["--no-deps", "--no-index", "--disable-pip-version-check"]
        subprocess.run([*map(str, pip), *offline, str(wheels[0])], check=True, cwd=folder)
        # An empty home: nothing that this machine has cached can help.
        bare = {"PATH": os.environ["PATH"], "HOME": folder, "HF_HUB_OFFLINE": "1"}
        command = [str(python), "-c", PROGRAM, package, sentence]
        run = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    if run.returncode:
        sys.exit(f"✘ The installed pipeline does not run:\n{run.stderr}")
    result = json.loads(run.stdout)
    if not result["entities"]:
        sys.exit(f"✘ The installed pipeline found no entity in {sentence!r}.")
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"✔ {package} loads and runs: {result['entities']}, relations: {result['relations']}")


def create_environment(folder: Path) -> Path:
    """A virtual environment that also finds the packages of the running one. Returns its Python."""
    venv.create(folder)
    base = {"base": str(folder), "platbase": str(folder)}
    own = Path(sysconfig.get_path("purelib", vars=base))
    shared = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    lines = [f"import site; site.addsitedir({path!r})" for path in sorted(shared)]
    (own / "shared.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "bin" / "python"


if __name__ == "__main__":
    main()
