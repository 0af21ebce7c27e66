"""PURE. The nouns every other room speaks; imports nothing but the standard library."""
