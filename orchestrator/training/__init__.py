"""Training one member: backbone, head, optimiser, loop, checkpoint.

Layer 3: receives rows, pixels and a recipe; knows neither runs nor workspaces nor the other members.
"""
