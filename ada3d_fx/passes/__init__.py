"""Conversion time: the passes that turn graphs into programs on packs."""
