"""Train one run: a resolved spec, prepared data and a seed in, weights, history, predictions out."""
