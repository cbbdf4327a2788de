"""Graphs of T frames that follow the kept frames: sizes by their number, constants by their times."""
