"""What lies in a workspace: runs, members' cards, held-out answers, ensembles; read strictly, written whole, deleted safely."""
