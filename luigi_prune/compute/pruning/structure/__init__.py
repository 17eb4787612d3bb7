"""How channels depend on each other, found by probing, and propagation of pruned entries through that structure."""
