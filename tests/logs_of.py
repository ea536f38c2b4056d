"""The real logs beside the tests."""

from pathlib import Path

LOGS = Path(__file__).parent / "logs"


def text_of(name: str) -> str:
    """A log by the beginning of its name: "084", "lab/6.1.0-56-cloud-amd64__memcg.txt"."""
    folder, _, start = name.rpartition("/")
    (path,) = sorted((LOGS / folder).glob(f"{start}*"))[:1]
    return path.read_bytes().decode(errors="backslashreplace")


def all_logs() -> list[Path]:
    """Every log that is not empty."""
    return [path for path in sorted([*LOGS.glob("*.log"), *(LOGS / "lab").glob("*.txt")]) if path.stat().st_size]
