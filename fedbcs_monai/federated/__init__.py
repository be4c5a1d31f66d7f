"""The federation: a site, the aggregator, their checkpoints."""
