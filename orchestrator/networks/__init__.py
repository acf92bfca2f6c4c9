"""Networks as torch runs them: backbones, heads, losses, views, initial weights, devices."""
