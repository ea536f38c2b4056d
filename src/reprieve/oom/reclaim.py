"""Whether the kernel swaps out at all."""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from reprieve.model.machine import Machine

LRU_GEN = "/sys/kernel/mm/lru_gen/enabled"


def swaps(machine: Machine) -> bool:
    """Does the kernel ever swap out, where there is swap? Not at a swappiness of 0 where MGLRU reclaims.

    isolate_folios() in mm/vmscan.c, since ac35a4902374 ("mm: multi-gen LRU: minimal implementation", v6.1), takes no
    anonymous page then, of the machine neither; get_scan_count() takes them when hardly any cache is left, or tries to:
    in small guests 5.10 and 6.1 killed with none left each time, 6.12 and 7 at times with all of it free. A group of
    version 1 may have another swappiness.
    """
    generations = dict(machine.settings).get(LRU_GEN, "0")
    if dict(machine.sysctls).get("vm.swappiness") != "0" or not re.fullmatch(r"0x[0-9a-f]{1,8}", generations):
        return True
    return int(generations, 16) & 1 == 0 or any(group.swappiness for group in machine.cgroups)
