"""The JSON of `unionfs replay --json`; see schemas.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from .schemas import Model
from .sim_schemas import MergedObject, SimulatedChange, SimulatedLayer, layers_of, merged_of
from .trace_schemas import TraceEvent

if TYPE_CHECKING:
    from unionfs.api.tracing import Replayed


class ReplayStep(Model):
    """One operation of `unionfs replay --json` (a list of these)."""

    number: int
    recorded: TraceEvent
    replayed: TraceEvent = Field(description="the same, as it went now")
    differs: bool = Field(description="it failed in another way, or did not")
    changes: list[SimulatedChange]
    layers: list[SimulatedLayer]
    merged: list[MergedObject] | None

    @classmethod
    def of(cls, replayed: Replayed) -> ReplayStep:
        picture = replayed.picture
        return cls(
            number=replayed.number,
            recorded=TraceEvent.of(replayed.recorded),
            replayed=TraceEvent.of(replayed.now),
            differs=replayed.differs,
            changes=[SimulatedChange(**change._asdict()) for change in replayed.changes],
            layers=layers_of(picture),
            merged=merged_of(picture),
        )
