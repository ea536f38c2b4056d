"""One change and its end, as a process of its own: what a test kills at each call.

Arguments: root, ledger, PLACE=VALUE…
"""

import sys

from reprieve.fix.journal import Journal
from reprieve.fix.transaction import apply
from reprieve.machine.ledger import LedgerFile
from reprieve.machine.places import MachinePlaces
from reprieve.model.change import Step
from reprieve.model.finding import parse_place

root, path, *wanted = sys.argv[1:]
places = MachinePlaces(root)
steps = []
for place, want in ((parse_place(told), value) for told, _, value in (one.rpartition("=") for one in wanted)):
    steps.append(Step(place=place, before=places.get(place), want=want))
with LedgerFile(path) as ledger:
    apply(steps, places, Journal(ledger, boot_id="boot-1", wall_s=1.0, user="root"))
print("done", flush=True)
