"""Event logs of an imagined site, with known truth: users, slates, clicks and what follows."""
