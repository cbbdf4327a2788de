"""Tables, records, statistics and figures; knows no graph."""
