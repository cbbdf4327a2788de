"""ClipRun time: what a batch goes through."""
