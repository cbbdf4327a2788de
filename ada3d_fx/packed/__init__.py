"""Run time: what a batch goes through."""
