"""From a request to what all runs of a plan share: data, dense weights, platform, profile, energy model, protocol."""
