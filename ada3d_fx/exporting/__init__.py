"""Export: an adaptive network and its selection network -> one file for an engine."""
