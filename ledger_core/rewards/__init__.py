"""Scheduled operations: which owners get one, and the sweep that posts it to all of them, once."""

from ledger_core.rewards.on_access import GrantOnAccess
from ledger_core.rewards.progress import SEGMENTS_MAX, Segment, Tally
from ledger_core.rewards.scheduled_operation import Reward
from ledger_core.rewards.sweep import Sweep

__all__ = [
    "SEGMENTS_MAX",
    "GrantOnAccess",
    "Reward",
    "Segment",
    "Sweep",
    "Tally",
]
