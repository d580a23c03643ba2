"""Training methods: one objective a file, called as ``objective(model, batch, context)``."""
