"""Training methods: one objective in each file, called as ``objective(model, batch, context)``."""
