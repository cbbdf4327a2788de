"""The selection network and how it learns; knows no graph."""
