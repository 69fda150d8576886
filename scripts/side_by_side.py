"""Run commands side by side, each a process with its share of the processor's cores.

    python scripts/side_by_side.py "python -m spacy train ..." "python -m spacy train ..."

Each command's output is printed when it ends. The first that fails ends the others.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time


def start(command: str, threads: int) -> tuple[str, subprocess.Popen[bytes]]:
    """Start a command. Returns the path of its output's file and the process."""
    words = shlex.split(command)
    if words[0] == "python":
        words[0] = sys.executable
    # Training does not scale with threads that wait for each other, so processes share no core.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.NamedTemporaryFile(delete=False) as output:
        process = subprocess.Popen(words, env=environment, stdout=output, stderr=output)
    print(f"Started: {command}", flush=True)
    return output.name, process


def main() -> None:
    commands = sys.argv[1:]
    threads = max(1, len(os.sched_getaffinity(0)) // len(commands))
    running = [start(command, threads) for command in commands]
    status = 0
    while running and not status:
        time.sleep(0.1)
        for entry in list(running):
            path, process = entry
            if process.poll() is not None:
                running.remove(entry)
                status = status or process.returncode
                show(path)
    for path, process in running:
        process.terminate()
        process.wait()
        show(path)
    sys.exit(status)


def show(path: str) -> None:
    with open(path, encoding="utf-8", errors="replace") as file:
        print(file.read(), flush=True)
    os.remove(path)


if __name__ == "__main__":
    main()
