"""Networks from specs: built, counted, and held against the totals that were recorded for them."""

from .checks import (
    Built,
    check_classes,
    check_recorded,
    count_parameters,
    display_id,
    survey_networks,
)
from .network import build, layer_table, output_activation, seen_size
from .starting import start
from .weights import load_checkpoint, starting_epoch

__all__ = [
    "Built", "build", "check_classes", "check_recorded", "count_parameters", "display_id",
    "layer_table", "load_checkpoint", "output_activation", "seen_size", "start", "starting_epoch",
    "survey_networks",
]  # fmt: skip
