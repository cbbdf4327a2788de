"""Conversion time: the passes that turn a model into programs on packs."""
