"""Conversion time: from a model to its adaptive program."""
