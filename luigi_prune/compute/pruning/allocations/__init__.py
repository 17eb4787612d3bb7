"""How many units each layer keeps at a given budget."""
