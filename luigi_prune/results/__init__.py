"""Result files in HDF5 and their provenance."""
