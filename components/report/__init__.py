"""What a run learnt: floors and paired comparisons in the DAG, the page outside it."""
