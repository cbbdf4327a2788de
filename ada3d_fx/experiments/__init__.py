"""What the larger tools do."""
