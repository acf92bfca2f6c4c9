"""Members become one answer: voting, and prediction from files.

Layer 4: knows members' files, not runs or workspaces.
"""
