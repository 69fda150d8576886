"""Make a posts file one without labels, in place: what `--vars.labels none` starts from.

    python scripts/hide_labels.py none posts.jsonl --keep 0

With `gold` the file stays as it is. With `none` train and unlabelled posts lose their labels, but
for the first `--keep` labelled train posts, which an LLM is shown as examples. Dev and test posts
keep theirs, to be scored. A split without posts gets every tenth post of those without labels, so
that plain texts will do.
"""

import argparse
import json
from pathlib import Path
from typing import Any

LABELS = ("entities", "relations", "pairs")
SPLITS = ("train", "unlabelled", "dev", "test")


def hide_labels(posts: list[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    """The posts in order, as described above."""
    hidden = []
    for post in posts:
        split = post.setdefault("split", "train")
        if split == "train" and post.get("entities") is not None and keep > 0:
            keep -= 1
        elif split in ("train", "unlabelled"):
            for name in LABELS:
                post.pop(name, None)
            hidden.append(post)
    for offset, split in enumerate(SPLITS):
        if all(post["split"] != split for post in posts):
            for post in hidden[offset::10]:
                post["split"] = split
    return posts


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the labels out of a posts file.")
    parser.add_argument("labels", choices=("gold", "none"))
    parser.add_argument("posts", type=Path, help="posts file (.jsonl), changed in place")
    parser.add_argument("--keep", type=int, default=0, help="train posts that stay labelled")
    options = parser.parse_args()
    if options.labels == "gold":
        return
    lines = options.posts.read_text("utf-8").splitlines()
    posts = hide_labels([json.loads(line) for line in lines], options.keep)
    options.posts.write_text(
        "".join(json.dumps(post, ensure_ascii=False) + "\n" for post in posts), "utf-8"
    )
    n_labelled = sum(post["split"] == "train" and "entities" in post for post in posts)
    print(f"{options.posts}: labels hidden, {n_labelled} train posts stay labelled")


if __name__ == "__main__":
    main()
