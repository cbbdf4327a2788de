"""A model as graphs: traced, what it writes in place followed, what cannot be traced kept whole."""
