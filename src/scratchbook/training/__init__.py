"""Train one run: a spec, prepared data and a seed in, weights, history, predictions out."""
