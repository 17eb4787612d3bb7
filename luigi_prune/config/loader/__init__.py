"""From an experiment file to experiments: YAML with positions, includes, sweeps."""
