"""How long work stood still for want of a resource (PSI)."""

from reprieve.model.noun import noun


@noun
class Pressure:
    """One line of a pressure file."""

    kind: str  # "some": at least one task waited; "full": all that could have run did
    avg10_percent: float
    avg60_percent: float
    avg300_percent: float
    total_us: int
