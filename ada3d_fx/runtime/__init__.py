"""Exported networks where they run: NumPy and one engine, neither torch nor MMAction2."""
