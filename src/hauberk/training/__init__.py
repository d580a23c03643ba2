"""The training loop with its stabilisers: schedules, weight averages, checkpoints, several processes."""
