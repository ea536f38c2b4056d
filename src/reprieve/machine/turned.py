"""Exports that begin with the newest line → the text as it was written."""

import re
from collections.abc import Iterator

from reprieve.machine.source import BLOCK_BYTES, Block
from reprieve.model.finding import Gap
from reprieve.oom.foreign import is_newest_first

_LOOKED_AT_BYTES = 64 << 10  # by whose lines it is told which way round a text is
_TURNED_BYTES = 16 << 20  # of a text that is turned round: log stores export some thousand lines
_OF_VALUES = rb"\s*(?:\{\s*\n|\[\s*[\[{\"\n])"  # JSON over several lines is read as values, whatever their order


def oldest_first(blocks: Iterator[Block], name: str, gaps: list[Gap]) -> Iterator[Block]:
    """The same text, the oldest line first; a gap tells where it was turned round, or is too large for that."""
    first = next(blocks, None)
    if first is None:
        return
    start = bytes(first[:_LOOKED_AT_BYTES])
    if re.match(_OF_VALUES, start) or not is_newest_first(start.decode(errors="backslashreplace")):
        yield first
        yield from blocks
        return
    text = bytearray(first)
    for block in blocks:
        text += block
        if len(text) > _TURNED_BYTES:
            reason = "its lines stand newest first, so that no report was read whole"
            gaps.append(Gap(place=name, reason=reason, hint="turn it round: tac FILE | reprieve why"))
            for at in range(0, len(text), BLOCK_BYTES):
                yield text[at : at + BLOCK_BYTES]
            yield from blocks
            return
    reason = "its lines stand newest first: they were read from the last to the first, and are numbered so"
    gaps.append(Gap(place=name, reason=reason, hides=False))
    if not text.endswith(b"\n"):  # the oldest line may be cut within its last word, and is the first now
        begin = text.rfind(b"\n") + 1
        del text[max(text.rfind(b" ", begin) + 1, begin) if text[-1:].isalnum() else len(text) :]
        text += b"\n"
    end = len(text) - 1
    while end >= 0:
        above = -1  # where the line above those ends that are given now
        if end > BLOCK_BYTES and (above := text.find(b"\n", end - BLOCK_BYTES, end)) < 0:
            above = text.rfind(b"\n", 0, end)  # a line is longer than a block
        yield b"\n".join([*reversed(text[above + 1 : end].split(b"\n")), b""])
        end = above
