"""Rewards: found on characters of an answer, placed on the tokens that wrote them."""
