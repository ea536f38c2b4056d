"""A cgroup is made, and removed, by processes of which each is killed before another line of ours.

Arguments: the folder of the package, the path of a cgroup that may be made. Prints how often it was killed while making
it, how often of those something half made was there, and how often it was killed while removing it.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, sys.argv[1])

from dying import forget, in_force, killed, make, unmake

from reprieve.machine.grouplimit import folder_of, tree_of
from reprieve.machine.host import Host
from reprieve.machine.newgroup import limits_of_new_group

FILE = "newgroup.py"
MOST = 32 << 20
(CHANGE,) = limits_of_new_group(Host(), sys.argv[2], most=MOST, swap=0)
GROUP = Path(folder_of(tree_of(Host()), sys.argv[2]))
WANT = CHANGE.want or ""
make_it = partial(make, CHANGE.place, WANT)


def there() -> bool:
    """Is it, with its limits? Half made it is not there, once somebody has looked after it."""
    if not GROUP.exists():
        return False
    assert [(GROUP / file).read_text().strip() for file in CHANGE.place.key.split("+")] == WANT.split("+")
    return True


which, halves = 1, 0
while killed(make_it, which, FILE):
    halves += GROUP.exists() and GROUP.stat().st_mode & 0o7777 == 0o1700
    holds = in_force()
    assert there() is holds, f"made to line {which}"
    if holds:
        unmake()
    assert not there(), f"made to line {which}"
    forget()
    which += 1
assert there()
making, which = which - 1, 1
while killed(unmake, which, FILE):
    holds = in_force()
    assert there() is holds, f"removed to line {which}"
    if not holds:
        forget()
        make_it()
    which += 1
assert not there()
removing = which - 1

print(making, halves, removing)
