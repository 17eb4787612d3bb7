"""Which units a layer keeps, given their number."""
