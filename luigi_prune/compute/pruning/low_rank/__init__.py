"""Low-rank layers: a layer as an encoding and a decoding, and how networks that hold such layers are rebuilt."""

from luigi_prune.compute.pruning.low_rank.decomposed import (
    Decomposed,
    DecompositionError,
    decompose,
    restore,
    structure_of,
)

__all__ = ["Decomposed", "DecompositionError", "decompose", "restore", "structure_of"]
