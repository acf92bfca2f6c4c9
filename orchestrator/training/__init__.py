"""Training one member: backbone, head, optimiser, loop, checkpoint.

Receives rows, pixels and a recipe; knows neither runs nor workspaces nor the other members.
"""
