"""Recipes, which say how a specialist is trained: their schema, files, checks, and search spaces."""
