"""One pruning step: the pipeline of scores, budget search, cuts and decompositions."""
