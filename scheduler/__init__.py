"""shisuan's scheduler: nouns, decisions, money and the service around them. Importing this package costs nothing."""
