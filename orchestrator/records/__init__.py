"""What is on record: runs, fold plans, ensembles, in one workspace folder.

Layer 5: files and their meaning; trains nothing and votes on nothing.
"""
