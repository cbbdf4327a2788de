"""What a policy costs, counted by fvcore."""
