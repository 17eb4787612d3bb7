"""The inputs of a method: layers, masks, calibration data, granularities and the records that its parts exchange."""
