"""Networks, data, training, metrics and pruning in torch, without Luigi, HDF5 or file layout."""
