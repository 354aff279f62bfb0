"""The corpus: questions and replies of which each is odd in one way. Says the same in every run.

`python -m tests.fuzz.corpus` writes it to corpus/queries and corpus/replies, a file for each.
"""

from __future__ import annotations

from pathlib import Path

from . import odd_queries, odd_replies

FOLDER = Path(__file__).parent / "corpus"


def found(kind: str) -> dict[str, bytes]:
    """What earlier runs of the fuzzer found; kind: queries or replies."""
    return {path.stem: path.read_bytes() for path in sorted((FOLDER / "found" / kind).glob("*.bin"))}


def queries() -> dict[str, bytes]:
    """What may come to our port 53, by a name that says what is odd about it."""
    return {**odd_queries.made(), **found("queries")}


def replies() -> dict[str, bytes]:
    """What an upstream may say to the question of `odd_replies.NAME`, the id being 7."""
    return {**odd_replies.made(), **found("replies")}


def write() -> None:
    """The files, and no others."""
    for kind, packets in (("queries", odd_queries.made()), ("replies", odd_replies.made())):
        folder = FOLDER / kind
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*.bin"):
            path.unlink()
        for what, data in packets.items():
            (folder / f"{what}.bin").write_bytes(data)


if __name__ == "__main__":
    write()
